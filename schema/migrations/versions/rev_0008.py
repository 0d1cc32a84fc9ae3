"""Both engines: when the operator said that identifiers are one node's, or are not, kept."""

from __future__ import annotations

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0008_node_link_events.sql")
