-- Who held an address or prefix at a time.
--   :address  an IPv6 address '2001:db8:1:5::7' or a prefix '2001:db8:1::/48' (then: whoever held any of it)
--   :at       ISO 8601, '2026-01-31T12:00:00Z' (no zone: UTC), or microseconds since 1970 as a number
-- In the sqlite3 shell:
--   .parameter set :address "'2001:db8:1:5::7'"
--   .parameter set :at "'2026-01-31T12:00:00Z'"
--   .read who_had.sql
-- No row: nobody. What is no address or no time is an error, of a JSON path: SQLite has no better way to raise one.
-- `since` and `until` are the ends of the tenure: it began with the first assignment and ended when the holder
-- released it or its lifetime ran out (without an end on record: the end promised now).
-- `event` is what last happened to it before :at: assigned (at its anchor) or deprecated (anchored away).
WITH RECURSIVE
-- A time in text is whole seconds and a fraction: strftime() would round that to milliseconds.
stated (at, whole, fraction) AS (
    SELECT :at,
           CASE instr(:at, '.') WHEN 0 THEN :at
                ELSE substr(:at, 1, instr(:at, '.') - 1)
                     || ltrim(substr(:at, instr(:at, '.') + 1), '0123456789') END,
           CASE instr(:at, '.') WHEN 0 THEN '' ELSE substr(:at, instr(:at, '.') + 1) END
),
moment (at) AS (
    SELECT CASE
           WHEN typeof(at) = 'integer' THEN at
           WHEN whole GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND strftime('%s', whole) IS NOT NULL
           THEN CAST(strftime('%s', whole) AS INTEGER) * 1000000 + CAST(substr(
                    substr(fraction, 1, length(fraction) - length(ltrim(fraction, '0123456789'))) || '000000', 1, 6)
                    AS INTEGER)
           ELSE json_extract('{}', ':at is no time: ' || quote(at)) END
    FROM stated
),
-- The text of the address to 32 hexadecimal digits.
asked (address, length) AS (
    SELECT CASE instr(:address, '/') WHEN 0 THEN :address ELSE substr(:address, 1, instr(:address, '/') - 1) END,
           CASE WHEN instr(:address, '/') = 0 THEN 128
                WHEN substr(:address, instr(:address, '/')) GLOB '/[0-9]*'
                     AND substr(:address, instr(:address, '/') + 1) NOT GLOB '*[^0-9]*'
                THEN CAST(substr(:address, instr(:address, '/') + 1) AS INTEGER) END
),
spelt_out (groups) AS (
    SELECT replace(address, '::', ':' || substr('0:0:0:0:0:0:0:0:', 1,
                   2 * (8 - (length(address) - length(replace(address, ':', '')))))) || ':'
    FROM asked
),
joined (n, digits, rest) AS (
    SELECT 0, '', groups FROM spelt_out
    UNION ALL
    SELECT n + 1,
           digits || substr('0000' || substr(rest, 1, instr(rest, ':') - 1), -4),
           substr(rest, instr(rest, ':') + 1)
    FROM joined WHERE n < 8 AND instr(rest, ':') BETWEEN 1 AND 5
),
spelt (digits) AS (
    SELECT upper(digits) FROM joined WHERE n = 8 AND rest = ''
),
whole (digits, length) AS (
    SELECT CASE WHEN digits NOT GLOB '*[^0-9A-F]*' AND length BETWEEN 0 AND 128 THEN digits
                ELSE json_extract('{}', ':address is no IPv6 address or prefix: ' || quote(:address)) END,
           length
    FROM asked LEFT JOIN spelt
),
-- Every prefix that holds what is asked for: one of each length, host bits cleared.
covering (length, digits) AS (
    SELECT 0, '00000000000000000000000000000000' FROM whole
    UNION ALL
    SELECT c.length + 1,
           substr(substr(w.digits, 1, (c.length + 1) / 4)
                  || substr('0123456789ABCDEF',
                            ((instr('0123456789ABCDEF', substr(w.digits, (c.length + 1) / 4 + 1, 1)) - 1)
                             & (240 >> (c.length + 1) % 4)) + 1, 1)
                  || '00000000000000000000000000000000', 1, 32)
    FROM covering c, whole w WHERE c.length < w.length
),
-- The last address of what is asked for.
ending (first, last, length) AS (
    SELECT c.digits,
           substr(substr(c.digits, 1, c.length / 4)
                  || substr('0123456789ABCDEF',
                            ((instr('0123456789ABCDEF', substr(c.digits, c.length / 4 + 1, 1)) - 1)
                             | (15 >> c.length % 4)) + 1, 1)
                  || 'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF', 1, 32),
           c.length
    FROM covering c JOIN whole w ON w.length = c.length
),
candidate (digits, length) AS (
    SELECT hex(h.prefix), h.prefix_length
    FROM covering c CROSS JOIN history h
    WHERE h.prefix IS NOT NULL AND hex(h.prefix) = c.digits AND h.prefix_length = c.length
    UNION
    SELECT hex(h.prefix), h.prefix_length
    FROM ending e CROSS JOIN history h
    WHERE h.prefix IS NOT NULL AND hex(h.prefix) BETWEEN e.first AND e.last AND h.prefix_length >= e.length
),
-- What last happened to each before the moment; it was held if that was not its end.
holding (id, digits, length, at) AS (
    SELECT (SELECT h.id FROM history h
            WHERE h.prefix IS NOT NULL AND hex(h.prefix) = c.digits AND h.prefix_length = c.length
              AND h.at <= m.at AND h.type <> 'conflict'
            ORDER BY h.at DESC, h.id DESC LIMIT 1),
           c.digits, c.length, m.at
    FROM moment m CROSS JOIN candidate c
    WHERE m.at IS NOT NULL -- what is no time is an error, also where there is no candidate
),
tenure AS (
    SELECT h.*, g.digits, g.length, g.at AS moment,
           -- The tenure lies between two ends, in the order in which they were recorded: an end may have been
           -- written down later than it took effect.
           (SELECT e.id FROM history e
            WHERE e.prefix IS NOT NULL AND hex(e.prefix) = g.digits AND e.prefix_length = g.length
              AND e.id < h.id AND e.type IN ('released', 'expired', 'reclaimed')
            ORDER BY e.id DESC LIMIT 1) AS ended_before,
           (SELECT e.at FROM history e
            WHERE e.prefix IS NOT NULL AND hex(e.prefix) = g.digits AND e.prefix_length = g.length
              AND e.id > h.id AND e.type IN ('released', 'expired', 'reclaimed')
            ORDER BY e.id LIMIT 1) AS ended_at
    FROM holding g JOIN history h ON h.id = g.id
    WHERE h.type IN ('assigned', 'deprecated')
),
answer AS (
    SELECT t.*,
           (SELECT min(e.at) FROM history e
            WHERE e.prefix IS NOT NULL AND hex(e.prefix) = t.digits AND e.prefix_length = t.length
              AND e.id <= t.id AND e.id > coalesce(t.ended_before, 0)
              AND e.type IN ('assigned', 'deprecated')) AS since,
           coalesce(t.ended_at, (SELECT min(b.valid_until, coalesce(b.hold_until, b.valid_until)) FROM binding b
                                 WHERE b.prefix = t.prefix AND b.prefix_length = t.length)) AS until
    FROM tenure t
)
SELECT a.prefix_text AS prefix,
       a.kind,
       a.node_id AS node,
       (SELECT group_concat(i.text, ' ') FROM node_identity i
        WHERE i.node_id = coalesce((SELECT n.merged_into_id FROM mobile_node n WHERE n.id = a.node_id),
                                   a.node_id)) AS identities,
       strftime('%Y-%m-%dT%H:%M:%S', a.since / 1000000, 'unixepoch') || printf('.%06dZ', a.since % 1000000) AS since,
       strftime('%Y-%m-%dT%H:%M:%S', a.until / 1000000, 'unixepoch') || printf('.%06dZ', a.until % 1000000) AS until,
       a.type AS event,
       anchor.name AS anchor,
       (SELECT s.name FROM history v LEFT JOIN maar s ON s.id = v.to_maar_id
        WHERE v.node_id = a.node_id AND v.at <= a.moment AND v.type = 'handover'
        ORDER BY v.at DESC, v.id DESC LIMIT 1) AS serving
FROM answer a
LEFT JOIN maar anchor ON anchor.id = a.anchor_id
WHERE a.until IS NULL OR a.until > a.moment
ORDER BY a.prefix, a.length;
