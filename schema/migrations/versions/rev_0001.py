"""SQLite: everything: the mobility domain, mobile nodes, bindings, the history, the views."""

from __future__ import annotations

import secrets

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    run_script(connection, "0001_tables.sql")
    run_script(connection, "0001_views.sql")
    connection.exec_driver_sql(
        "INSERT INTO domain (id, version, hash_key) VALUES (1, 1, ?)", (secrets.token_bytes(32),)
    )
