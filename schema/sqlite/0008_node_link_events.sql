-- What the operator said of two identifiers, and when: `dhcp-cmd node link` and `node unlink`, as texts of node_identity in the
-- order in which he named them. It is part of the history, and as append-only: `node_link` has only what is said now, and an
-- identifier that was parted from a node is not in node_identity any more.
CREATE TABLE node_link_event (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    event  TEXT    NOT NULL CHECK (event IN ('linked', 'unlinked')),
    first  TEXT    NOT NULL,
    second TEXT    NOT NULL
) STRICT;

INSERT INTO node_link_event (at, event, first, second) SELECT made_at, 'linked', first, second FROM node_link ORDER BY made_at;

CREATE TRIGGER node_link_event_no_update BEFORE UPDATE ON node_link_event
BEGIN
    SELECT RAISE(ABORT, 'the history is append-only');
END;

CREATE TRIGGER node_link_event_no_delete BEFORE DELETE ON node_link_event
WHEN NOT EXISTS (SELECT 1 FROM prune WHERE finished_at IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the history is append-only: only db prune deletes from it');
END;

CREATE VIEW link_events AS
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000000, 'unixepoch') AS at, event, first, second FROM node_link_event ORDER BY id;
