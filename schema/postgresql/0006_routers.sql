-- As which router hosts see a MAAR where each is one of its own (RFC 8885 section 3.7). NULL: the link-layer address follows
-- from the endpoint, the link-local one from the link-layer one (docs/protocol.md).
ALTER TABLE maar ADD COLUMN router_link_local inet
    CHECK (router_link_local <<= 'fe80::/64' AND masklen(router_link_local) = 128);
ALTER TABLE maar ADD COLUMN router_link_layer bytea CHECK (length(router_link_layer) = 6);

CREATE UNIQUE INDEX maar_router_link_local ON maar (router_link_local) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX maar_router_link_layer ON maar (router_link_layer) WHERE removed_at IS NULL;

-- Replaced in place: who may read it stays so.
CREATE OR REPLACE VIEW maars AS
SELECT m.name,
       m.endpoint,
       m.relay_address,
       encode(m.relay_id, 'hex') AS relay_id,
       CASE WHEN m.removed_at IS NULL THEN m.state ELSE 'removed' END AS state,
       (SELECT string_agg(text(set_masklen(l.prefix, l.prefix_length)::cidr), ' ' ORDER BY l.id)
        FROM link l WHERE l.maar_id = m.id) AS links,
       m.removed_at,
       m.id AS maar_id,
       m.router_link_local,
       encode(m.router_link_layer, 'hex') AS router_link_layer
FROM maar m;
