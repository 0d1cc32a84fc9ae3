-- Two identifiers that are one node's, by the operator's word (`dhcp-cmd node link`), as texts of node_identity: each pair once,
-- the lesser one first. It stays until `dhcp-cmd node unlink`, whether the node is known or not.
CREATE TABLE node_link (
    first   text        NOT NULL COLLATE "C",
    second  text        NOT NULL COLLATE "C" CHECK (first < second),
    made_at timestamptz NOT NULL,
    PRIMARY KEY (first, second)
);

-- It is part of the domain: a CMD reads it anew when it has changed.
CREATE TRIGGER node_link_changed AFTER INSERT OR DELETE OR TRUNCATE ON node_link EXECUTE FUNCTION domain_changed();
