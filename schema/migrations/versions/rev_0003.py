"""Both engines: the outbox of Proxy Binding Updates."""

from __future__ import annotations

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0003_signals.sql")
