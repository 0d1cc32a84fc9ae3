"""SQLite: fewer indexes; the bindings of one node beside each other. PostgreSQL: everything."""

from __future__ import annotations

import secrets

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        run_script(connection, "0002_locality.sql")
        return
    run_script(connection, "0002_tables.sql")
    run_script(connection, "0002_views.sql")
    connection.exec_driver_sql(
        "INSERT INTO domain (id, version, hash_key) VALUES (1, 1, %s)", (secrets.token_bytes(32),)
    )
