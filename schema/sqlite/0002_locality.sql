-- Fewer indexes, and rows that belong together beside each other: a new node costs one page of an index that is
-- spread over all nodes (its identity), not nine.
--
-- binding: one node's rows are neighbours (a primary key that begins with the node). A prefix is unique still.
-- `slot` and `last_address` went: both follow from the prefix.
-- node_identity: one index, on the text that people ask by, in place of two.

DROP VIEW pools;
DROP VIEW nodes;
DROP VIEW bindings;

DROP TRIGGER binding_reclaimed;
DROP TRIGGER binding_first;
DROP TRIGGER binding_moved;
DROP TRIGGER binding_last;

ALTER TABLE node_identity RENAME TO old_identity;
ALTER TABLE binding RENAME TO old_binding;

DROP INDEX node_identity_value;
DROP INDEX node_identity_node;
DROP INDEX node_identity_text;
DROP INDEX binding_node;
DROP INDEX binding_anchor;
DROP INDEX binding_last;
DROP INDEX binding_expiring;
DROP INDEX binding_held;
DROP INDEX binding_reusable;

-- Mobile Node Identifiers: subtypes of RFC 4283 and RFC 8371 (1 NAI, 5 EUI-48, 6 EUI-64, 8 DUID). `text` says both
-- subtype and value. `retired` is 0 for what a node is known by; of a node that was forgotten it is the node's id.
CREATE TABLE node_identity (
    id      INTEGER PRIMARY KEY,
    node_id INTEGER NOT NULL REFERENCES mobile_node (id),
    subtype INTEGER NOT NULL CHECK (subtype BETWEEN 0 AND 255),
    value   BLOB    NOT NULL,
    text    TEXT    NOT NULL, -- 'duid:0003...', 'eui48:02:00:5e:00:53:01', 'nai:user@realm'
    retired INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, node_id)),
    UNIQUE (text, retired)
) STRICT;

INSERT INTO node_identity (id, node_id, subtype, value, text, retired)
SELECT id, node_id, subtype, value, text, CASE retired WHEN 0 THEN 0 ELSE node_id END FROM old_identity;
DROP TABLE old_identity;

CREATE INDEX node_identity_node ON node_identity (node_id);

-- One row for each prefix or IA_NA address that may not be given to anybody else.
CREATE TABLE binding (
    prefix          BLOB    NOT NULL UNIQUE CHECK (length(prefix) = 16),
    prefix_length   INTEGER NOT NULL CHECK (prefix_length BETWEEN 0 AND 128),
    prefix_text     TEXT    NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('link', 'address', 'delegated')),
    node_id         INTEGER NOT NULL REFERENCES mobile_node (id),
    iaid            INTEGER CHECK (iaid BETWEEN 0 AND 4294967295),
    anchor_id       INTEGER NOT NULL REFERENCES maar (id),
    pool_id         INTEGER REFERENCES pool (id),
    state           TEXT    NOT NULL CHECK (state IN ('active', 'deprecated', 'ended')),
    assigned_at     INTEGER NOT NULL,
    preferred_until INTEGER NOT NULL,
    valid_until     INTEGER NOT NULL,
    hold_until      INTEGER,
    ended_at        INTEGER,
    reusable_at     INTEGER,
    PRIMARY KEY (node_id, prefix),
    CHECK ((kind = 'link') = (iaid IS NULL)),
    CHECK ((kind = 'address') = (pool_id IS NULL)),
    -- without an end and a time to reuse it, an ended binding would hold its prefix for ever
    CHECK (state <> 'ended' OR (ended_at IS NOT NULL AND reusable_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO binding
SELECT prefix, prefix_length, prefix_text, kind, node_id, iaid, anchor_id, pool_id, state, assigned_at,
       preferred_until, valid_until, hold_until, ended_at, reusable_at
FROM old_binding ORDER BY node_id, prefix;
DROP TABLE old_binding;

CREATE INDEX binding_anchor   ON binding (anchor_id);
CREATE INDEX binding_expiring ON binding (valid_until) WHERE state <> 'ended';
CREATE INDEX binding_held     ON binding (hold_until)  WHERE state = 'deprecated';
CREATE INDEX binding_reusable ON binding (reusable_at) WHERE state = 'ended';

-- Counters that move by themselves.
CREATE TRIGGER binding_reclaimed AFTER DELETE ON binding WHEN OLD.pool_id IS NOT NULL
BEGIN
    UPDATE pool SET reclaimed = reclaimed + 1 WHERE id = OLD.pool_id;
END;

CREATE TRIGGER binding_first AFTER INSERT ON binding
BEGIN
    UPDATE mobile_node SET idle = 0 WHERE id = NEW.node_id AND idle = 1;
END;

CREATE TRIGGER binding_moved AFTER UPDATE OF node_id ON binding WHEN NEW.node_id <> OLD.node_id
BEGIN
    UPDATE mobile_node SET idle = 0 WHERE id = NEW.node_id AND idle = 1;
    UPDATE mobile_node SET idle = 1
    WHERE id = OLD.node_id AND idle = 0 AND NOT EXISTS (SELECT 1 FROM binding WHERE node_id = OLD.node_id);
END;

CREATE TRIGGER binding_last AFTER DELETE ON binding
BEGIN
    UPDATE mobile_node SET idle = 1
    WHERE id = OLD.node_id AND idle = 0 AND NOT EXISTS (SELECT 1 FROM binding WHERE node_id = OLD.node_id);
END;

CREATE VIEW pools AS
SELECT m.name AS maar,
       p.kind,
       p.prefix_text AS prefix,
       p.unit_length,
       p.preferred,
       p.valid,
       1 << (p.unit_length - p.prefix_length) AS size,
       (SELECT count(*) FROM binding b WHERE b.anchor_id = p.maar_id AND b.pool_id = p.id) AS taken,
       strftime('%Y-%m-%dT%H:%M:%SZ', p.removed_at / 1000000, 'unixepoch') AS removed_at,
       p.id AS pool_id
FROM pool p JOIN maar m ON m.id = p.maar_id;

CREATE VIEW nodes AS
SELECT n.id AS node_id,
       (SELECT group_concat(i.text, ' ') FROM node_identity i WHERE i.node_id = n.id) AS identities,
       s.name AS serving,
       p.name AS previous,
       strftime('%Y-%m-%dT%H:%M:%S', n.visit_since / 1000000, 'unixepoch')
           || printf('.%06dZ', n.visit_since % 1000000) AS visit_since,
       n.generation,
       n.merged_into_id AS merged_into
FROM mobile_node n
LEFT JOIN maar s ON s.id = n.serving_id
LEFT JOIN maar p ON p.id = n.previous_id;

CREATE VIEW bindings AS
SELECT b.prefix_text AS prefix,
       b.kind,
       b.state,
       a.name AS anchor,
       s.name AS serving,
       b.node_id,
       (SELECT group_concat(i.text, ' ') FROM node_identity i WHERE i.node_id = b.node_id) AS identities,
       b.iaid,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.assigned_at / 1000000, 'unixepoch') AS assigned_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.preferred_until / 1000000, 'unixepoch') AS preferred_until,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.valid_until / 1000000, 'unixepoch') AS valid_until,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.hold_until / 1000000, 'unixepoch') AS hold_until,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.ended_at / 1000000, 'unixepoch') AS ended_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.reusable_at / 1000000, 'unixepoch') AS reusable_at
FROM binding b
JOIN maar a ON a.id = b.anchor_id
JOIN mobile_node n ON n.id = b.node_id
LEFT JOIN maar s ON s.id = n.serving_id;
