-- What was accepted of the PMIPv6 messages of each peer (RFC 4285 section 6): none that it signed at or before
-- `accepted_until`, by the peer's clock as this CMD reckons it, is accepted after a restart. It is written before what was
-- accepted is acted upon, and only ever moves on.
--
-- `owner` is the CMD, by its own address for PMIPv6: a message is signed for one address, so each CMD has marks of its own, and
-- they stay with the address. `peer` is the sender's address.
CREATE TABLE replay_mark (
    owner          TEXT    NOT NULL,
    peer           TEXT    NOT NULL,
    accepted_until INTEGER NOT NULL,
    PRIMARY KEY (owner, peer)
) STRICT, WITHOUT ROWID;
