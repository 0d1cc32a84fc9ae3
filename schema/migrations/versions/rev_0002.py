"""Fewer indexes; the bindings of one node beside each other."""

from __future__ import annotations

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0002_locality.sql")
