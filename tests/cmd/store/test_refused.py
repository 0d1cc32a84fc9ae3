"""A row that the database does not take costs the one request that asks for it, on either engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import Change, PutBinding, PutNode, State
from dhcp_cmd.core.ports import Collision, Refused, StoreError
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, admin, maintenance
from tests.cmd.core.world import Answer, Host, M, World, pd
from tests.cmd.store import poison
from tests.cmd.store.domain import ENGINES, a_binding, a_node, duid, opened, the_pool


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path, bits=6) as made:
        yield made


def test_what_kind_of_error_it_is(store: SqlStore) -> None:
    pool = the_pool(admin.read_domain(store))

    def raised(*changes: Change) -> StoreError:
        with pytest.raises(StoreError) as error, store.transaction() as transaction:
            transaction.write(changes)
        assert "\n" not in str(error.value)
        return error.value

    link = a_binding(pool, 1, 1)
    assert type(raised(PutNode(a_node(1)._replace(flaps=-1), True))) is Refused
    assert type(raised(PutBinding(link._replace(state=State.ENDED), True))) is Refused
    assert type(raised(PutNode(a_node(1), False))) is Collision
    assert type(raised(PutNode(a_node(1), True), PutNode(a_node(2, duid(1)), True))) is Collision


def test_the_others_of_the_batch_are_answered(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(admin.read_domain(store))
    cmd = Cmd(store, world.settings)
    poison.refuse(store, Host(13).identity)
    for _ in range(2):  # it asks again
        batch = [world.packet(Host(n), 1, M.REQUEST, pd(), mac=False) for n in range(1, 33)]
        with caplog.at_level(logging.ERROR):
            decisions = cmd.handle(batch, lambda: world.now)
        expected = ["reply"] * 32
        expected[12] = "internal-error"
        assert [each.outcome for each in decisions] == expected
        assert decisions[12].reply is None
        given = {p for each in decisions if each.reply for p in Answer(each).pd[1]}
        assert len(given) == 31
    assert cmd.outcomes == {"reply": 62, "internal-error": 2}
    assert maintenance.check(store) == []
    assert maintenance.status(store)["nodes"] == 31
    [record] = caplog.records
    assert poison.MESSAGE in record.message
    assert record.exc_info is None  # the driver's own words below would show the row
