-- Handovers between each pair of MAARs in a period. Without from_maar: a first attach.
--   :since, :until  ISO 8601, '2026-01-31T12:00:00Z' (no zone: UTC), or microseconds since 1970; NULL: open
-- In the sqlite3 shell:
--   .parameter set :since "'2026-01-31T00:00:00Z'"
--   .parameter set :until "'2026-02-01T00:00:00Z'"
--   .read handovers.sql
-- What is no time is an error, of a JSON path: SQLite has no better way to raise one.
WITH
-- A time in text is whole seconds and a fraction: strftime() would round that to milliseconds.
given (name, at) AS (
    SELECT ':since', :since UNION ALL SELECT ':until', :until
),
stated (name, at, whole, fraction) AS (
    SELECT name, at,
           CASE instr(at, '.') WHEN 0 THEN at
                ELSE substr(at, 1, instr(at, '.') - 1)
                     || ltrim(substr(at, instr(at, '.') + 1), '0123456789') END,
           CASE instr(at, '.') WHEN 0 THEN '' ELSE substr(at, instr(at, '.') + 1) END
    FROM given
),
bound (name, at) AS (
    SELECT name, CASE
           WHEN typeof(at) = 'integer' THEN at
           WHEN at IS NULL THEN CASE name WHEN ':since' THEN 0 ELSE 9223372036854775807 END
           WHEN whole GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND strftime('%s', whole) IS NOT NULL
           THEN CAST(strftime('%s', whole) AS INTEGER) * 1000000 + CAST(substr(
                    substr(fraction, 1, length(fraction) - length(ltrim(fraction, '0123456789'))) || '000000', 1, 6)
                    AS INTEGER)
           ELSE json_extract('{}', name || ' is no time: ' || quote(at)) END
    FROM stated
),
period (since, until) AS (
    SELECT max(CASE name WHEN ':since' THEN at END), max(CASE name WHEN ':until' THEN at END) FROM bound
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
