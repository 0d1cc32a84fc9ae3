-- What a MAAR anchors, and for whom.
--   :maar  its name, or NULL for all
-- In the sqlite3 shell:
--   .parameter set :maar "'maar1'"
--   .read anchors.sql
-- state: active (the node is here, or was last seen here) or deprecated (anchored away: tunnelled to `serving`).
SELECT m.name AS anchor,
       b.prefix_text AS prefix,
       b.kind,
       b.state,
       s.name AS serving,
       b.node_id AS node,
       (SELECT group_concat(i.text, ' ') FROM node_identity i WHERE i.node_id = b.node_id) AS identities,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.assigned_at / 1000000, 'unixepoch') AS assigned_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', b.valid_until / 1000000, 'unixepoch') AS valid_until
FROM maar m
CROSS JOIN binding b ON b.anchor_id = m.id AND b.state IN ('active', 'deprecated')
JOIN mobile_node n ON n.id = b.node_id
LEFT JOIN maar s ON s.id = n.serving_id
WHERE :maar IS NULL OR m.name = :maar
ORDER BY m.name, b.prefix;
