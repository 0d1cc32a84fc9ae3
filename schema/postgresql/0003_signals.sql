-- The outbox of the modes in which the CMD tells the P-MAARs where a node is (RFC 8885 sections 3.2 to 3.4). A row says
-- that a MAAR is still owed a Proxy Binding Update about a node; what that says is made of the node's rows when it is sent.
-- It is written with what it is about, in one transaction, and deleted when the MAAR has acknowledged.
--
-- `serial` grows each time that something new is owed: an acknowledgement of what was sent before finishes nothing. `visit`
-- is 1 while the MAAR has not acknowledged where the node is, 0 where it has and only the node's prefixes have changed.
-- `owner` is the CMD that sends it, until `claimed_until`: from then on any other may take it over.
--
-- Rows are put by who holds the node's lock, and deleted by who sends them, without it.
CREATE TABLE signal (
    node_id       bigint      NOT NULL,
    maar_id       bigint      NOT NULL,
    serial        bigint      NOT NULL,
    visit         smallint    NOT NULL CHECK (visit IN (0, 1)),
    put_at        timestamptz NOT NULL,
    owner         text,
    claimed_until timestamptz NOT NULL,
    PRIMARY KEY (node_id, maar_id)
);

CREATE INDEX signal_maar    ON signal (maar_id);
CREATE INDEX signal_claimed ON signal (claimed_until);

CREATE VIEW signals AS
SELECT s.node_id,
       (SELECT string_agg(i.text, ' ' ORDER BY i.id) FROM node_identity i WHERE i.node_id = s.node_id) AS identities,
       m.name AS maar,
       s.visit,
       s.put_at,
       s.owner
FROM signal s JOIN maar m ON m.id = s.maar_id;
