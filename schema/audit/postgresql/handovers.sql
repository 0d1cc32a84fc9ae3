-- Handovers between each pair of MAARs in a period. Without from_maar: a first attach.
--   since, until  '2026-01-31T12:00:00Z' (no zone: that of the session); nothing: open
-- In psql:
--   \set since 2026-01-31T00:00:00Z
--   \set until 2026-02-01T00:00:00Z
--   \i handovers.sql
WITH
period AS MATERIALIZED (
    SELECT coalesce(CAST(nullif(:'since', '') AS timestamptz), '-infinity') AS since,
           coalesce(CAST(nullif(:'until', '') AS timestamptz), 'infinity') AS until
),
pair AS (
    SELECT h.from_maar_id, h.to_maar_id, count(*) AS handovers, min(h.at) AS first, max(h.at) AS last
    FROM period p JOIN history h ON h.type = 'handover' AND h.at >= p.since AND h.at < p.until
    GROUP BY h.from_maar_id, h.to_maar_id
)
SELECT f.name AS from_maar,
       t.name AS to_maar,
       pair.handovers,
       to_char(pair.first AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS first,
       to_char(pair.last AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last
FROM pair
LEFT JOIN maar f ON f.id = pair.from_maar_id
LEFT JOIN maar t ON t.id = pair.to_maar_id
ORDER BY pair.handovers DESC, f.name NULLS FIRST, t.name NULLS FIRST;
