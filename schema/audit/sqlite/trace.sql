-- The trail of a mobile node: all its moves, where it was when, and what happened to its prefixes.
--   :node  'duid:00030001...', 'eui48:02:00:5e:00:53:01', 'nai:user@realm' (column `text` of node_identity)
-- In the sqlite3 shell:
--   .parameter set :node "'eui48:02:00:5e:00:53:01'"
--   .read trace.sql
-- A handover says where it went and until when it stayed. Nodes that turned out to be this one are included.
WITH RECURSIVE
same (id) AS (
    SELECT node_id FROM node_identity WHERE text = :node
    UNION
    SELECT n.id FROM same CROSS JOIN mobile_node n ON n.merged_into_id = same.id
                                                  AND n.merged_into_id IS NOT NULL
),
trail AS (
    SELECT h.*,
           CASE h.type WHEN 'handover' THEN lead(h.at) OVER (PARTITION BY h.type ORDER BY h.at, h.id) END AS until
    FROM same CROSS JOIN history h ON h.node_id = same.id
)
SELECT strftime('%Y-%m-%dT%H:%M:%S', t.at / 1000000, 'unixepoch') || printf('.%06dZ', t.at % 1000000) AS at,
       strftime('%Y-%m-%dT%H:%M:%S', t.until / 1000000, 'unixepoch') || printf('.%06dZ', t.until % 1000000) AS until,
       t.type AS event,
       f.name AS from_maar,
       s.name AS to_maar,
       t.prefix_text AS prefix,
       a.name AS anchor,
       t.cause,
       t.detail
FROM trail t
LEFT JOIN maar f ON f.id = t.from_maar_id
LEFT JOIN maar s ON s.id = t.to_maar_id
LEFT JOIN maar a ON a.id = t.anchor_id
ORDER BY t.at, t.id;
