-- What a MAAR anchors, and for whom.
--   maar  its name, or nothing for all
-- In psql:
--   \set maar maar1
--   \i anchors.sql
-- state: active (the node is here, or was last seen here) or deprecated (anchored away: tunnelled to `serving`).
SELECT m.name AS anchor,
       text(set_masklen(b.prefix, b.prefix_length)::cidr) AS prefix,
       b.kind,
       b.state,
       s.name AS serving,
       b.node_id AS node,
       (SELECT string_agg(i.text, ' ' ORDER BY i.id) FROM node_identity i WHERE i.node_id = b.node_id) AS identities,
       to_char(b.assigned_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS assigned_at,
       to_char(b.valid_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS valid_until
FROM maar m
JOIN binding b ON b.anchor_id = m.id AND b.state IN ('active', 'deprecated')
JOIN mobile_node n ON n.id = b.node_id
LEFT JOIN maar s ON s.id = n.serving_id
WHERE :'maar' = '' OR m.name = :'maar'
ORDER BY m.name, b.prefix;
