"""Both engines: as which router hosts see a MAAR."""

from __future__ import annotations

from alembic import op

from dhcp_cmd.store.migrate import run_script

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0006_routers.sql")
