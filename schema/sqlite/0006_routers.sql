-- As which router hosts see a MAAR where each is one of its own (RFC 8885 section 3.7). NULL: the link-layer address follows
-- from the endpoint, the link-local one from the link-layer one (docs/protocol.md).
ALTER TABLE maar ADD COLUMN router_link_local BLOB
    CHECK (length(router_link_local) = 16 AND substr(router_link_local, 1, 8) = X'FE80000000000000');
ALTER TABLE maar ADD COLUMN router_link_local_text TEXT;
ALTER TABLE maar ADD COLUMN router_link_layer BLOB CHECK (length(router_link_layer) = 6);

CREATE UNIQUE INDEX maar_router_link_local ON maar (router_link_local) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX maar_router_link_layer ON maar (router_link_layer) WHERE removed_at IS NULL;

DROP VIEW maars;
CREATE VIEW maars AS
SELECT m.name,
       m.endpoint_text AS endpoint,
       m.relay_address_text AS relay_address,
       lower(hex(m.relay_id)) AS relay_id,
       CASE WHEN m.removed_at IS NULL THEN m.state ELSE 'removed' END AS state,
       (SELECT group_concat(l.prefix_text, ' ') FROM link l WHERE l.maar_id = m.id) AS links,
       strftime('%Y-%m-%dT%H:%M:%SZ', m.removed_at / 1000000, 'unixepoch') AS removed_at,
       m.id AS maar_id,
       m.router_link_local_text AS router_link_local,
       lower(hex(m.router_link_layer)) AS router_link_layer
FROM maar m;
