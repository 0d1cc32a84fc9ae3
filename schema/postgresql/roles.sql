-- Who may do what; not needed, and not made by `dhcp-cmd db upgrade`. As the owner of the tables, who also is the operator
-- (`dhcp-cmd maar`, `db prune`, `db upgrade`, `db backup`), after each upgrade:
--     psql cmd -v cmd=dhcp_cmd -v auditor=cmd_audit -f roles.sql
--   cmd      the role that `dhcp-cmd serve`, `dhcp-cmd reap` and ipv6-dhcpd connect as: it writes nodes, bindings and new
--            history; what is in the history, and the domain, it can only read
--   auditor  the role for `dhcp-cmd audit`, `status` and `db check`, and for people: it reads all but the allocation key
-- The roles are there already (CREATE ROLE ... LOGIN).

GRANT USAGE ON SCHEMA public TO :"cmd", :"auditor";

GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"cmd";
GRANT INSERT, UPDATE ON mobile_node, replay_mark TO :"cmd";
GRANT INSERT, UPDATE, DELETE ON node_identity, binding, signal TO :"cmd";
GRANT INSERT ON history TO :"cmd";
GRANT UPDATE (reclaimed) ON pool TO :"cmd";
GRANT UPDATE ON domain TO :"cmd"; -- what LOCK TABLE asks for
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"cmd";

GRANT SELECT ON maar, link, pool, mobile_node, node_identity, binding, signal, replay_mark, node_link, node_link_event, history, prune,
                alembic_version, maars, pools, nodes, bindings, signals, events, link_events TO :"auditor";
GRANT SELECT (id, version) ON domain TO :"auditor";
