"""A node that a database refuses: the test's own rule beside the schema's."""

from __future__ import annotations

from dhcp_cmd.store import SqlStore
from dmm_wire.identity import Identity

MESSAGE = "poison"


def refuse(store: SqlStore, identity: Identity) -> None:
    """From now on no row with this identity can be written."""
    if store.engine.dialect.name == "sqlite":
        rule = (
            "CREATE TRIGGER poison BEFORE INSERT ON node_identity"
            f" WHEN NEW.text = '{identity}' BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
        )
    else:
        rule = f"ALTER TABLE node_identity ADD CONSTRAINT {MESSAGE} CHECK (text <> '{identity}')"
    with store.administration() as connection:
        connection.exec_driver_sql(rule)
