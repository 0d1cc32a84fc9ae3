"""The marks that make replay impossible over restarts. See the table `replay_mark`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from dhcp_cmd.core.model import Micros
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.sql import SqlStore
from dmm_wire.address import format_address, parse_address

_insert: Final[Mapping[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""By the engine: both have the same ON CONFLICT."""


class SqlMarks:
    """Those of one CMD, `owner`, by their peers' addresses. All methods raise StoreError."""

    def __init__(self, store: SqlStore, owner: str) -> None:
        self._store = store
        self._owner = owner

    def read(self) -> dict[bytes, Micros]:
        """All there are."""
        mark = t.replay_mark.c
        query = select(mark.peer, mark.accepted_until).where(mark.owner == self._owner)
        with reading(self._store.engine) as connection:
            return {parse_address(peer): until for peer, until in connection.execute(query)}

    def write(self, marks: Mapping[bytes, Micros]) -> None:
        """Make these durable. One that is later stays."""
        rows = [
            {"owner": self._owner, "peer": format_address(peer), "accepted_until": until}
            for peer, until in sorted(marks.items())
        ]
        if not rows:
            return
        put = _insert[self._store.engine.dialect.name](t.replay_mark)
        put = put.on_conflict_do_update(
            index_elements=["owner", "peer"],
            set_={"accepted_until": put.excluded.accepted_until},
            where=t.replay_mark.c.accepted_until < put.excluded.accepted_until,
        )
        with self._store.administration() as connection:
            connection.execute(put, rows)
