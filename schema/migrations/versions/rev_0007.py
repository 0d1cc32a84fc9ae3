"""Both engines: what the operator said are one node's identifiers, kept."""

from __future__ import annotations

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0007_node_links.sql")
