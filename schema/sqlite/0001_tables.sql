-- The Central Mobility Database on SQLite (3.37 or later): tables, indexes, triggers.
--
-- Times are integers: microseconds since 1970-01-01T00:00:00Z. Addresses are BLOBs of 16 bytes, so that
-- comparing them is comparing addresses; SQLite has no functions for them, so what a person reads stands
-- beside them in a ..._text column. The views of 0001_views.sql show both times and addresses as text.


-- The mobility domain -------------------------------------------------------------------------------

-- One row. `version` moves with every change to maar, link or pool (triggers below), also with one made by
-- hand: a running CMD compares it in every transaction. `hash_key` keys the allocation of prefixes.
CREATE TABLE domain (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    version  INTEGER NOT NULL,
    hash_key BLOB    NOT NULL CHECK (length(hash_key) >= 16)
) STRICT;

-- A MAAR that was removed keeps its row, because the history names it; its name, identifier and addresses
-- are free again.
CREATE TABLE maar (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    name               TEXT    NOT NULL CHECK (name <> ''),
    relay_id           BLOB    NOT NULL CHECK (length(relay_id) BETWEEN 3 AND 130), -- a DUID, RFC 9915 section 11
    endpoint           BLOB    NOT NULL CHECK (length(endpoint) = 16),
    endpoint_text      TEXT    NOT NULL,
    relay_address      BLOB    NOT NULL CHECK (length(relay_address) = 16),
    relay_address_text TEXT    NOT NULL,
    state              TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining')),
    removed_at         INTEGER
) STRICT;

CREATE UNIQUE INDEX maar_name     ON maar (name)     WHERE removed_at IS NULL;
CREATE UNIQUE INDEX maar_relay_id ON maar (relay_id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX maar_endpoint ON maar (endpoint) WHERE removed_at IS NULL;

-- The access links of a MAAR: the link-address of what it relays lies in one of them.
CREATE TABLE link (
    id            INTEGER PRIMARY KEY,
    maar_id       INTEGER NOT NULL REFERENCES maar (id),
    prefix        BLOB    NOT NULL CHECK (length(prefix) = 16),
    prefix_length INTEGER NOT NULL CHECK (prefix_length BETWEEN 0 AND 128),
    prefix_text   TEXT    NOT NULL,
    UNIQUE (prefix, prefix_length)
) STRICT;

CREATE INDEX link_maar ON link (maar_id);

-- What a MAAR hands out: `prefix` in units of `unit_length` bits, slots 0 to 2^(unit_length - prefix_length) - 1.
-- Lifetimes are seconds, 4294967295 is infinity. `reclaimed` counts units that came back: a pool that was
-- seen full stays full until it moves.
CREATE TABLE pool (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    maar_id       INTEGER NOT NULL REFERENCES maar (id),
    kind          TEXT    NOT NULL CHECK (kind IN ('link', 'delegated')),
    prefix        BLOB    NOT NULL CHECK (length(prefix) = 16),
    prefix_length INTEGER NOT NULL CHECK (prefix_length BETWEEN 0 AND 128),
    prefix_text   TEXT    NOT NULL,
    unit_length   INTEGER NOT NULL CHECK (unit_length BETWEEN 1 AND 128),
    preferred     INTEGER NOT NULL CHECK (preferred BETWEEN 1 AND 4294967295),
    valid         INTEGER NOT NULL CHECK (valid BETWEEN 1 AND 4294967295),
    reclaimed     INTEGER NOT NULL DEFAULT 0,
    removed_at    INTEGER,
    CHECK (unit_length - prefix_length BETWEEN 0 AND 62),
    CHECK (preferred <= valid)
) STRICT;

CREATE INDEX pool_maar ON pool (maar_id);
CREATE UNIQUE INDEX pool_prefix ON pool (prefix, prefix_length) WHERE removed_at IS NULL;


-- Mobile nodes --------------------------------------------------------------------------------------

-- The visit a node is on. A node that was merged into another keeps its row (without identities), because
-- the history names it; `merged_into_id` says where its life went on. One that held nothing for long keeps its
-- row too, and its identities are `retired`: for the CMD it is a stranger again, the history still names it.
-- `link_layer` is the address of its last message; `heard` and `heard_before` are the last message (type,
-- transaction id) of this visit and of the visit before. `idle` is 1 while no row of binding is the node's
-- (triggers below), NULL once it is retired or merged.
CREATE TABLE mobile_node (
    id             INTEGER PRIMARY KEY,
    serving_id     INTEGER REFERENCES maar (id),
    previous_id    INTEGER REFERENCES maar (id),
    generation     INTEGER NOT NULL CHECK (generation >= 0),
    visit_since    INTEGER NOT NULL,
    flaps          INTEGER NOT NULL DEFAULT 0 CHECK (flaps >= 0),
    link_layer     BLOB    CHECK (length(link_layer) IN (6, 8)),
    heard          BLOB    CHECK (length(heard) = 4),
    heard_before   BLOB    CHECK (length(heard_before) = 4),
    conflict_at    INTEGER,
    idle           INTEGER DEFAULT 1 CHECK (idle IN (0, 1)),
    merged_into_id INTEGER REFERENCES mobile_node (id)
) STRICT;

CREATE INDEX mobile_node_serving ON mobile_node (serving_id);
CREATE INDEX mobile_node_idle    ON mobile_node (visit_since) WHERE idle = 1;
CREATE INDEX mobile_node_merged  ON mobile_node (merged_into_id) WHERE merged_into_id IS NOT NULL;

-- Mobile Node Identifiers: subtypes of RFC 4283 and RFC 8371 (1 NAI, 5 EUI-48, 6 EUI-64, 8 DUID).
CREATE TABLE node_identity (
    id      INTEGER PRIMARY KEY,
    node_id INTEGER NOT NULL REFERENCES mobile_node (id),
    subtype INTEGER NOT NULL CHECK (subtype BETWEEN 0 AND 255),
    value   BLOB    NOT NULL,
    text    TEXT    NOT NULL, -- 'duid:0003...', 'eui48:02:00:5e:00:53:01', 'nai:user@realm'
    retired INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX node_identity_value ON node_identity (value, subtype) WHERE retired = 0;
CREATE INDEX node_identity_node ON node_identity (node_id);
CREATE INDEX node_identity_text ON node_identity (text);


-- Current bindings ----------------------------------------------------------------------------------

-- One row for each prefix or IA_NA address that may not be given to anybody else, keyed by its first address.
CREATE TABLE binding (
    prefix          BLOB    NOT NULL PRIMARY KEY CHECK (length(prefix) = 16),
    prefix_length   INTEGER NOT NULL CHECK (prefix_length BETWEEN 0 AND 128),
    prefix_text     TEXT    NOT NULL,
    last_address    BLOB    NOT NULL CHECK (length(last_address) = 16 AND last_address >= prefix),
    kind            TEXT    NOT NULL CHECK (kind IN ('link', 'address', 'delegated')),
    node_id         INTEGER NOT NULL REFERENCES mobile_node (id),
    iaid            INTEGER CHECK (iaid BETWEEN 0 AND 4294967295),
    anchor_id       INTEGER NOT NULL REFERENCES maar (id),
    pool_id         INTEGER REFERENCES pool (id),
    slot            INTEGER CHECK (slot >= 0),
    state           TEXT    NOT NULL CHECK (state IN ('active', 'deprecated', 'ended')),
    assigned_at     INTEGER NOT NULL,
    preferred_until INTEGER NOT NULL,
    valid_until     INTEGER NOT NULL,
    hold_until      INTEGER,
    ended_at        INTEGER,
    reusable_at     INTEGER,
    UNIQUE (pool_id, slot),
    CHECK ((kind = 'link') = (iaid IS NULL)),
    CHECK ((kind = 'address') = (pool_id IS NULL)),
    CHECK ((pool_id IS NULL) = (slot IS NULL)),
    -- without an end and a time to reuse it, an ended binding would hold its prefix for ever
    CHECK (state <> 'ended' OR (ended_at IS NOT NULL AND reusable_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX binding_node     ON binding (node_id);
CREATE INDEX binding_anchor   ON binding (anchor_id, state);
CREATE INDEX binding_last     ON binding (last_address);
CREATE INDEX binding_expiring ON binding (valid_until) WHERE state <> 'ended';
CREATE INDEX binding_held     ON binding (hold_until)  WHERE state = 'deprecated';
CREATE INDEX binding_reusable ON binding (reusable_at) WHERE state = 'ended';


-- History -------------------------------------------------------------------------------------------

-- Append-only. The order of `id` is the order in which things were recorded; replaying it gives `binding`.
-- `at` is when a thing took effect, `recorded_at` when it was written down.
CREATE TABLE history (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    at             INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL,
    type           TEXT    NOT NULL CHECK (type IN ('assigned', 'handover', 'deprecated', 'released',
                                                    'expired', 'reclaimed', 'conflict')),
    node_id        INTEGER NOT NULL REFERENCES mobile_node (id),
    cause          TEXT    NOT NULL,
    prefix         BLOB    CHECK (length(prefix) = 16),
    prefix_length  INTEGER CHECK (prefix_length BETWEEN 0 AND 128),
    prefix_text    TEXT,
    kind           TEXT    CHECK (kind IN ('link', 'address', 'delegated')),
    iaid           INTEGER,
    anchor_id      INTEGER REFERENCES maar (id),
    from_maar_id   INTEGER REFERENCES maar (id),
    to_maar_id     INTEGER REFERENCES maar (id),
    generation     INTEGER,
    transaction_id BLOB,
    detail         TEXT,
    CHECK ((prefix IS NULL) = (prefix_length IS NULL) AND (prefix IS NULL) = (prefix_text IS NULL)),
    CHECK (type IN ('handover', 'conflict') OR prefix IS NOT NULL)
) STRICT;

CREATE INDEX history_node     ON history (node_id, at);
CREATE INDEX history_handover ON history (at, from_maar_id, to_maar_id) WHERE type = 'handover';
-- In hexadecimal, because SQL can make that of an address in text, and BLOBs it cannot (before SQLite 3.41).
CREATE INDEX history_prefix   ON history (hex(prefix), prefix_length, at) WHERE prefix IS NOT NULL;

-- The one way to delete history: open a row here (`finished_at` NULL), delete, and close it, in one transaction
-- (`dhcp-cmd db prune` does, a little at a time, so that the CMD can write in between). The rows stay and say
-- what the history no longer covers: of what had ended before `before` nothing is known any more.
CREATE TABLE prune (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    before      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    events      INTEGER NOT NULL DEFAULT 0,
    nodes       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX prune_open ON prune (id) WHERE finished_at IS NULL;

CREATE TRIGGER history_no_update BEFORE UPDATE ON history
BEGIN
    SELECT RAISE(ABORT, 'the history is append-only');
END;

CREATE TRIGGER history_no_delete BEFORE DELETE ON history
WHEN NOT EXISTS (SELECT 1 FROM prune WHERE finished_at IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the history is append-only: only db prune deletes from it');
END;

CREATE TRIGGER prune_no_delete BEFORE DELETE ON prune
BEGIN
    SELECT RAISE(ABORT, 'what was pruned stays on record');
END;


-- Counters that move by themselves ------------------------------------------------------------------

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

CREATE TRIGGER maar_inserted AFTER INSERT ON maar BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER maar_updated  AFTER UPDATE ON maar BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER maar_deleted  AFTER DELETE ON maar BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER link_inserted AFTER INSERT ON link BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER link_updated  AFTER UPDATE ON link BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER link_deleted  AFTER DELETE ON link BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER pool_inserted AFTER INSERT ON pool BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER pool_deleted  AFTER DELETE ON pool BEGIN UPDATE domain SET version = version + 1; END;
CREATE TRIGGER pool_updated  AFTER UPDATE OF maar_id, kind, prefix, prefix_length, unit_length, preferred,
                                             valid, removed_at ON pool
BEGIN
    UPDATE domain SET version = version + 1;
END;
