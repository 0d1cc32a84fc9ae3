-- Two identifiers that are one node's, by the operator's word (`dhcp-cmd node link`), as texts of node_identity: each pair once,
-- the lesser one first. It stays until `dhcp-cmd node unlink`, whether the node is known or not.
CREATE TABLE node_link (
    first   TEXT    NOT NULL,
    second  TEXT    NOT NULL CHECK (first < second),
    made_at INTEGER NOT NULL,
    PRIMARY KEY (first, second)
) STRICT, WITHOUT ROWID;

-- It is part of the domain: a CMD reads it anew when it has changed.
CREATE TRIGGER node_link_inserted AFTER INSERT ON node_link BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER node_link_deleted  AFTER DELETE ON node_link BEGIN UPDATE domain SET version = version + 1; END;
