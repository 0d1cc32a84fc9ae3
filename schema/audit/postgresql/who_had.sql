-- Who held an address or prefix at a time.
--   address  an IPv6 address '2001:db8:1:5::7' or a prefix '2001:db8:1::/48' (then: whoever held any of it)
--   at       '2026-01-31T12:00:00Z' (no zone: that of the session)
-- In psql:
--   \set address 2001:db8:1:5::7
--   \set at 2026-01-31T12:00:00Z
--   \i who_had.sql
-- No row: nobody. What is no address or no time is an error.
-- `since` and `until` are the ends of the tenure: it began with the first assignment and ended when the holder
-- released it or its lifetime ran out (without an end on record: the end promised now).
-- `event` is what last happened to it before `at`: assigned (at its anchor) or deprecated (anchored away).
WITH
moment AS MATERIALIZED (SELECT CAST(:'at' AS timestamptz) AS at),
given AS MATERIALIZED (
    SELECT CASE family(CAST(:'address' AS inet)) WHEN 6 THEN network(CAST(:'address' AS inet))::inet
                ELSE CAST('IPv4 ' || :'address' AS inet) END AS address
),
asked AS MATERIALIZED (
    SELECT set_masklen(address, 128) AS first, set_masklen(broadcast(address), 128) AS last,
           masklen(address) AS length
    FROM given
),
-- Every prefix that holds what is asked for, one of each length; and all that lie in it.
candidate AS (
    SELECT held.prefix, held.prefix_length
    FROM asked a
    CROSS JOIN LATERAL generate_series(0, a.length) AS covering (length)
    CROSS JOIN LATERAL (
        SELECT h.prefix, h.prefix_length FROM history h
        WHERE h.prefix = set_masklen(network(set_masklen(a.first, covering.length))::inet, 128)
          AND h.prefix_length = covering.length
        LIMIT 1
    ) AS held
    UNION
    SELECT held.prefix, held.prefix_length
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT h.prefix, h.prefix_length FROM history h
        WHERE h.prefix BETWEEN a.first AND a.last AND h.prefix_length >= a.length
        OFFSET 0
    ) AS held
),
-- What last happened to each before the moment; it was held if that was not its end.
holding AS (
    SELECT last.*, m.at AS moment
    FROM moment m
    CROSS JOIN candidate c
    CROSS JOIN LATERAL (
        SELECT * FROM history h
        WHERE h.prefix = c.prefix AND h.prefix_length = c.prefix_length AND h.at <= m.at AND h.type <> 'conflict'
        ORDER BY h.at DESC, h.id DESC
        LIMIT 1
    ) AS last
    WHERE last.type IN ('assigned', 'deprecated')
),
tenure AS (
    SELECT h.*,
           -- The tenure lies between two ends, in the order in which they were recorded: an end may have been
           -- written down later than it took effect.
           (SELECT max(e.id) FROM history e
            WHERE e.prefix = h.prefix AND e.prefix_length = h.prefix_length
              AND e.id < h.id AND e.type IN ('released', 'expired', 'reclaimed')) AS ended_before,
           (SELECT e.at FROM history e
            WHERE e.prefix = h.prefix AND e.prefix_length = h.prefix_length
              AND e.id > h.id AND e.type IN ('released', 'expired', 'reclaimed')
            ORDER BY e.id LIMIT 1) AS ended_at
    FROM holding h
),
answer AS (
    SELECT t.*,
           (SELECT min(e.at) FROM history e
            WHERE e.prefix = t.prefix AND e.prefix_length = t.prefix_length
              AND e.id <= t.id AND e.id > coalesce(t.ended_before, 0)
              AND e.type IN ('assigned', 'deprecated')) AS since,
           coalesce(t.ended_at, (SELECT least(b.valid_until, b.hold_until) FROM binding b
                                 WHERE b.prefix = t.prefix AND b.prefix_length = t.prefix_length)) AS until
    FROM tenure t
)
SELECT text(set_masklen(a.prefix, a.prefix_length)::cidr) AS prefix,
       a.kind,
       a.node_id AS node,
       (SELECT string_agg(i.text, ' ' ORDER BY i.id) FROM node_identity i
        WHERE i.node_id = coalesce((SELECT n.merged_into_id FROM mobile_node n WHERE n.id = a.node_id),
                                   a.node_id)) AS identities,
       to_char(a.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS since,
       to_char(a.until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS until,
       a.type AS event,
       anchor.name AS anchor,
       (SELECT s.name FROM history v LEFT JOIN maar s ON s.id = v.to_maar_id
        WHERE v.node_id = a.node_id AND v.at <= a.moment AND v.type = 'handover'
        ORDER BY v.at DESC, v.id DESC LIMIT 1) AS serving
FROM answer a
LEFT JOIN maar anchor ON anchor.id = a.anchor_id
WHERE a.until IS NULL OR a.until > a.moment
ORDER BY a.prefix, a.prefix_length;
