-- What a person reads: every table with names for numbers and prefixes as cidr.
--     psql cmd -c "SELECT * FROM bindings WHERE prefix >>= '2001:db8:1:5::7'"
-- Times are shown in the time zone of the session (SET TimeZone = 'UTC').

CREATE VIEW maars AS
SELECT m.name,
       m.endpoint,
       m.relay_address,
       encode(m.relay_id, 'hex') AS relay_id,
       CASE WHEN m.removed_at IS NULL THEN m.state ELSE 'removed' END AS state,
       (SELECT string_agg(text(set_masklen(l.prefix, l.prefix_length)::cidr), ' ' ORDER BY l.id)
        FROM link l WHERE l.maar_id = m.id) AS links,
       m.removed_at,
       m.id AS maar_id
FROM maar m;

CREATE VIEW pools AS
SELECT m.name AS maar,
       p.kind,
       set_masklen(p.prefix, p.prefix_length)::cidr AS prefix,
       p.unit_length,
       p.preferred,
       p.valid,
       1::bigint << (p.unit_length - p.prefix_length) AS size,
       (SELECT count(*) FROM binding b WHERE b.anchor_id = p.maar_id AND b.pool_id = p.id) AS taken,
       p.removed_at,
       p.id AS pool_id
FROM pool p JOIN maar m ON m.id = p.maar_id;

CREATE VIEW nodes AS
SELECT n.id AS node_id,
       (SELECT string_agg(i.text, ' ' ORDER BY i.id) FROM node_identity i WHERE i.node_id = n.id) AS identities,
       s.name AS serving,
       p.name AS previous,
       n.visit_since,
       n.generation,
       n.merged_into_id AS merged_into
FROM mobile_node n
LEFT JOIN maar s ON s.id = n.serving_id
LEFT JOIN maar p ON p.id = n.previous_id;

CREATE VIEW bindings AS
SELECT set_masklen(b.prefix, b.prefix_length)::cidr AS prefix,
       b.kind,
       b.state,
       a.name AS anchor,
       s.name AS serving,
       b.node_id,
       (SELECT string_agg(i.text, ' ' ORDER BY i.id) FROM node_identity i WHERE i.node_id = b.node_id) AS identities,
       b.iaid,
       b.assigned_at,
       b.preferred_until,
       b.valid_until,
       b.hold_until,
       b.ended_at,
       b.reusable_at
FROM binding b
JOIN maar a ON a.id = b.anchor_id
JOIN mobile_node n ON n.id = b.node_id
LEFT JOIN maar s ON s.id = n.serving_id;

CREATE VIEW events AS
SELECT h.id,
       h.at,
       h.type AS event,
       h.node_id,
       set_masklen(h.prefix, h.prefix_length)::cidr AS prefix,
       h.kind,
       h.iaid,
       a.name AS anchor,
       f.name AS from_maar,
       t.name AS to_maar,
       h.cause,
       encode(h.transaction_id, 'hex') AS transaction_id,
       h.generation,
       h.detail,
       h.recorded_at
FROM history h
LEFT JOIN maar a ON a.id = h.anchor_id
LEFT JOIN maar f ON f.id = h.from_maar_id
LEFT JOIN maar t ON t.id = h.to_maar_id;
