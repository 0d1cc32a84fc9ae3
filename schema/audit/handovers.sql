-- Handovers between each pair of MAARs in a period. Without from_maar: a first attach.
--   :since, :until  ISO 8601, '2026-01-31T12:00:00Z', or microseconds since 1970 as a number; NULL: open
-- In the sqlite3 shell:
--   .parameter set :since "'2026-01-31T00:00:00Z'"
--   .parameter set :until "'2026-02-01T00:00:00Z'"
--   .read handovers.sql
WITH period (since, until) AS (
    SELECT CASE typeof(:since)
           WHEN 'text' THEN CAST(strftime('%s', :since) AS INTEGER) * 1000000
                            + CAST(substr(strftime('%f', :since), 4) AS INTEGER) * 1000
           WHEN 'null' THEN 0
           ELSE :since END,
           CASE typeof(:until)
           WHEN 'text' THEN CAST(strftime('%s', :until) AS INTEGER) * 1000000
                            + CAST(substr(strftime('%f', :until), 4) AS INTEGER) * 1000
           WHEN 'null' THEN 9223372036854775807
           ELSE :until END
),
pair AS (
    SELECT h.from_maar_id, h.to_maar_id, count(*) AS handovers, min(h.at) AS first, max(h.at) AS last
    FROM period p CROSS JOIN history h ON h.type = 'handover' AND h.at >= p.since AND h.at < p.until
    GROUP BY h.from_maar_id, h.to_maar_id
)
SELECT f.name AS from_maar,
       t.name AS to_maar,
       pair.handovers,
       strftime('%Y-%m-%dT%H:%M:%S', pair.first / 1000000, 'unixepoch')
           || printf('.%06dZ', pair.first % 1000000) AS first,
       strftime('%Y-%m-%dT%H:%M:%S', pair.last / 1000000, 'unixepoch')
           || printf('.%06dZ', pair.last % 1000000) AS last
FROM pair
LEFT JOIN maar f ON f.id = pair.from_maar_id
LEFT JOIN maar t ON t.id = pair.to_maar_id
ORDER BY pair.handovers DESC, f.name, t.name;
