-- What a person reads: every table with names for numbers, ISO 8601 times (UTC) and addresses as text.
--     sqlite3 -box cmd.sqlite "SELECT * FROM bindings WHERE prefix = '2001:db8:1:5::/64'"

CREATE VIEW maars AS
SELECT m.name,
       m.endpoint_text AS endpoint,
       m.relay_address_text AS relay_address,
       lower(hex(m.relay_id)) AS relay_id,
       CASE WHEN m.removed_at IS NULL THEN m.state ELSE 'removed' END AS state,
       (SELECT group_concat(l.prefix_text, ' ') FROM link l WHERE l.maar_id = m.id) AS links,
       strftime('%Y-%m-%dT%H:%M:%SZ', m.removed_at / 1000000, 'unixepoch') AS removed_at,
       m.id AS maar_id
FROM maar m;

CREATE VIEW pools AS
SELECT m.name AS maar,
       p.kind,
       p.prefix_text AS prefix,
       p.unit_length,
       p.preferred,
       p.valid,
       1 << (p.unit_length - p.prefix_length) AS size,
       (SELECT count(*) FROM binding b WHERE b.pool_id = p.id) AS taken,
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

CREATE VIEW events AS
SELECT h.id,
       strftime('%Y-%m-%dT%H:%M:%S', h.at / 1000000, 'unixepoch') || printf('.%06dZ', h.at % 1000000) AS at,
       h.type AS event,
       h.node_id,
       h.prefix_text AS prefix,
       h.kind,
       h.iaid,
       a.name AS anchor,
       f.name AS from_maar,
       t.name AS to_maar,
       h.cause,
       lower(hex(h.transaction_id)) AS transaction_id,
       h.generation,
       h.detail,
       strftime('%Y-%m-%dT%H:%M:%S', h.recorded_at / 1000000, 'unixepoch')
           || printf('.%06dZ', h.recorded_at % 1000000) AS recorded_at
FROM history h
LEFT JOIN maar a ON a.id = h.anchor_id
LEFT JOIN maar f ON f.id = h.from_maar_id
LEFT JOIN maar t ON t.id = h.to_maar_id;
