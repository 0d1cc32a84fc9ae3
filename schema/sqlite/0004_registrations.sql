-- The PMIPv6 front end: MAARs register nodes by Proxy Binding Updates (RFC 8885 section 3.1).
--
-- `registered` is the timestamp of the last one that was accepted for a node (RFC 5213 section 5.5). `autoconf` is 1 for a
-- LINK prefix that a MAAR registered: the node makes its own addresses out of it, which have no rows. `hold_until` is set, too,
-- on what is active while its node was de-registered and may come back; so the index is over all that is held.
ALTER TABLE mobile_node ADD COLUMN registered INTEGER CHECK (registered >= 0);
ALTER TABLE binding ADD COLUMN autoconf INTEGER NOT NULL DEFAULT 0 CHECK (autoconf IN (0, 1));

DROP INDEX binding_held;
CREATE INDEX binding_held ON binding (hold_until) WHERE hold_until IS NOT NULL AND state <> 'ended';
