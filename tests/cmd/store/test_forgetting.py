"""Nodes that held nothing for long: strangers to the CMD, not to the audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcp_cmd import audit
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, admin, maintenance
from dhcp_cmd.store.prune import prune
from dmm_wire.address import format_address
from tests.cmd.core.world import Answer, Host, M, World, na
from tests.cmd.store.domain import ENGINES, opened


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def world(store: SqlStore) -> World:
    """Hosts of a CMD on the store."""
    made = World(admin.read_domain(store))
    made.cmd = Cmd(store, made.settings)
    return made


def forgotten(world: World) -> None:
    """Time passes until nothing is held any more and nobody is remembered."""
    for _ in range(3):
        world.later(100_000)
        world.cmd.reap(world.now, 1000)


def nodes_named(answer: audit.Answer) -> list[tuple[object, object]]:
    columns = [answer.columns.index(name) for name in ("node", "identities")]
    return [(row[columns[0]], row[columns[1]]) for row in answer.rows]


def test_a_node_that_comes_back_again_and_again(store: SqlStore, world: World) -> None:
    host = Host(1)
    for _ in range(4):
        assert world.ask(host, 1, M.REQUEST, na()).outcome == "reply"
        forgotten(world)
        assert maintenance.status(store)["nodes"] == 0
        assert maintenance.check(store) == []
    assert world.cmd.outcomes == {"reply": 4}
    assert len(audit.trace(store, host.identity).rows) == 4 * 7  # every one of its lives


def test_the_audit_names_who_is_forgotten(store: SqlStore, world: World) -> None:
    host, heir = Host(1), Host(2)
    (address,) = Answer(world.ask(host, 1, M.REQUEST, na())).na[1]
    then = world.now + 1
    text = format_address(address)
    before = nodes_named(audit.who_had(store, text, then))
    forgotten(world)
    assert nodes_named(audit.who_had(store, text, then)) == before
    assert str(host.identity) in str(before)
    # Also when its interface has gone to somebody else.
    heir.mac = host.mac
    world.ask(heir, 1, M.REQUEST, na())
    assert nodes_named(audit.who_had(store, text, then)) == before


def test_prune_takes_the_rest(store: SqlStore, world: World) -> None:
    world.ask(Host(1), 1, M.REQUEST, na())
    forgotten(world)
    assert prune(store, world.now, world.now).nodes == 1
    with store.administration() as connection:
        for table in ("mobile_node", "node_identity", "history"):
            query = f"SELECT count(*) FROM {table}"
            assert connection.exec_driver_sql(query).scalar_one() == 0


def test_a_node_without_a_binding_is_not_looked_for_in_all_of_them(store: SqlStore) -> None:
    query = (
        "SELECT id FROM mobile_node WHERE idle = 1 AND visit_since <= {} ORDER BY visit_since, id"
    )
    explain = {
        "sqlite": f"EXPLAIN QUERY PLAN {query.format(5)}",
        "postgresql": f"EXPLAIN {query.format('now()')}",
    }
    with store.administration() as connection:  # on PostgreSQL, as ever, without seqscan
        plan = connection.exec_driver_sql(explain[store.engine.dialect.name]).all()
    assert "mobile_node_idle" in str(plan)
    assert "Sort" not in str(plan)
