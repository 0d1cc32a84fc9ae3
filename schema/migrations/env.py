"""Alembic runs this. The connection comes from `dhcp_cmd.store.migrate`, already in a transaction."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations are run by `dhcp-cmd db upgrade`")

# SQLite's DDL is transactional too: an upgrade happens as a whole or not at all.
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
