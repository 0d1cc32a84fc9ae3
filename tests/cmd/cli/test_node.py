"""`dhcp-cmd node`: two identifiers that are one node's, and who the nodes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dhcp_cmd import cli
from dhcp_cmd.commands.context import ENVIRONMENT, Mistake, now
from dhcp_cmd.commands.node import identity
from dhcp_cmd.core.model import EventType, Lookup, PutBinding, PutNode, Record
from dhcp_cmd.store import SqlStore, StoreError, maintenance
from dhcp_cmd.store.prune import prune
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    event,
    link_events,
    mac,
    opened,
    the_pool,
    url_of,
)
from tests.cmd.store.test_contract import domain_of, written

NAI = Identity(IdentitySubtype.NAI, b"anna@example.org")


def run(store: SqlStore, folder: Path, *arguments: str) -> int:
    return cli.run(["--database", url_of(store, folder), "node", "link", *arguments])


@pytest.mark.parametrize("engine", ENGINES)
def test_two_nodes_become_one(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with opened(engine, tmp_path) as store:
        pool = the_pool(domain_of(store))
        by_dhcp, by_pbu = a_binding(pool, 1, 7), a_binding(pool, 2, 8, autoconf=True)
        other = the_pool(domain_of(store), 2)
        by_pbu = a_binding(other, 2, 8, autoconf=True)
        later = a_node(8, NAI, serving=2)._replace(generation=(T0 >> 4) + 1)
        written(
            store,
            PutNode(a_node(7), True),
            PutNode(later, True),
            PutBinding(by_dhcp, True),
            PutBinding(by_pbu, True),
            Record(event(EventType.ASSIGNED, by_dhcp)),
            Record(event(EventType.ASSIGNED, by_pbu)),
        )
        assert run(store, tmp_path, str(duid(7)), str(NAI)) == 0
        assert capsys.readouterr().out == f"{duid(7)} and {NAI} are one node\n"
        with store.transaction() as transaction:
            snapshot = transaction.read([Lookup((duid(7),))])
        (node,) = {each.id: each for each in snapshot.nodes.values()}.values()
        assert (node.id, node.serving, set(node.identities)) == (8, 2, {duid(7), NAI})
        assert maintenance.check(store) == []
        assert run(store, tmp_path, str(NAI), str(duid(7))) == 0
        assert capsys.readouterr().out == f"{NAI} and {duid(7)} are one node already\n"


def test_one_node_gets_another_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened("sqlite", tmp_path) as store:
        binding = a_binding(the_pool(domain_of(store)), 1, 7)
        written(store, PutNode(a_node(7), True), PutBinding(binding, True))
        hexadecimal = duid(7).value.hex()
        assert run(store, tmp_path, hexadecimal, "02:00:00:00:00:09") == 0
        with store.transaction() as transaction:
            nodes = transaction.read([Lookup((mac(9),))]).nodes
        assert set(nodes[mac(9)].identities) == {duid(7), mac(9)}


def node(store: SqlStore, folder: Path, *arguments: str) -> int:
    return cli.run(["--database", url_of(store, folder), "node", *arguments])


def rows(
    store: SqlStore, folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert node(store, folder, *arguments, "--format", "json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_is_prepared_and_taken_back(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(engine, tmp_path) as store:
        version = domain_of(store).version
        assert run(store, tmp_path, str(NAI), str(mac(1))) == 0
        assert capsys.readouterr().out == f"{NAI} and {mac(1)} will be one node\n"
        assert run(store, tmp_path, str(mac(1)), str(NAI)) == 0
        assert capsys.readouterr().out == f"{mac(1)} and {NAI} will be one node already\n"
        assert domain_of(store).version > version
        assert domain_of(store).linked == {NAI: (mac(1),), mac(1): (NAI,)}
        (row,) = rows(store, tmp_path, capsys, "list")
        assert (row["identities"], row["state"]) == (f"{mac(1)} {NAI}", "to come")
        assert rows(store, tmp_path, capsys, "show", str(NAI)) == []
        assert node(store, tmp_path, "unlink", str(NAI), str(mac(1))) == 0
        assert capsys.readouterr().out == f"{NAI} and {mac(1)} are not one node any more\n"
        assert domain_of(store).linked == {}
        assert node(store, tmp_path, "unlink", str(NAI), str(mac(1))) == 2
        told = f"dhcp-cmd: {NAI} and {mac(1)} are not linked\n"
        assert capsys.readouterr() == ("", told)
        assert maintenance.check(store) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_known_node_is_shown_and_parted(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(engine, tmp_path) as store:
        binding = a_binding(the_pool(domain_of(store)), 1, 7)
        assigned = Record(event(EventType.ASSIGNED, binding))
        written(store, PutNode(a_node(7), True), PutBinding(binding, True), assigned)
        assert run(store, tmp_path, str(duid(7)), str(NAI)) == 0
        (row,) = rows(store, tmp_path, capsys, "list")
        assert set(row["identities"].split()) >= {str(duid(7)), str(NAI)}
        assert (row["state"], row["serving"], row["holds"]) == ("known", "maar1", 1)
        assert row["since"].endswith("Z")
        by_duid, by_nai = (
            rows(store, tmp_path, capsys, "show", str(name)) for name in (duid(7), NAI)
        )
        assert by_duid == by_nai
        assert [(each["prefix"], each["anchor"]) for each in by_duid] == [
            (str(binding.prefix), "maar1")
        ]
        assert node(store, tmp_path, "show", str(NAI)) == 0
        assert f"{duid(7)}" in capsys.readouterr().out.splitlines()[0]
        assert node(store, tmp_path, "unlink", str(duid(7)), str(NAI)) == 0
        assert [each["holds"] for each in rows(store, tmp_path, capsys, "list")] == [1]
        assert node(store, tmp_path, "show", str(NAI)) == 2
        assert capsys.readouterr().err == f"dhcp-cmd: no node is known by {NAI}\n"
        assert maintenance.check(store) == []


def test_what_is_linked_by_way_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened("sqlite", tmp_path) as store:
        for first, second in ((duid(1), NAI), (NAI, mac(1)), (duid(1), mac(1))):
            assert run(store, tmp_path, str(first), str(second)) == 0
        (row,) = rows(store, tmp_path, capsys, "list")
        assert set(row["identities"].split()) == {str(duid(1)), str(NAI), str(mac(1))}
        assert node(store, tmp_path, "unlink", str(duid(1)), str(mac(1))) == 2
        assert "are still one node, by other links" in capsys.readouterr().err
        assert run(store, tmp_path, str(NAI), str(NAI)) == 2
        assert capsys.readouterr().err == f"dhcp-cmd: {NAI} is one identifier\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (str(duid(1)), duid(1)),
        (duid(1).value.hex(), duid(1)),
        (duid(1).value.hex(":"), duid(1)),
        ("02:00:00:00:00:09", mac(9)),
        ("eui48:02:00:00:00:00:09", mac(9)),
        ("nai:anna@example.org", NAI),
        ("NAI:anna@example.org", NAI),
    ],
)
def test_how_an_identifier_is_written(text: str, wanted: Identity) -> None:
    assert identity(text) == wanted


@pytest.mark.parametrize("text", ["", "00", "anna@example.org", "eui48:02:00", "nai:"])
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(Mistake, match="is no identifier"):
        identity(text)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_said_of_two_identifiers_is_in_the_history(engine: str, tmp_path: Path) -> None:
    def said() -> list[tuple[str, str, str]]:
        return [(what, first, second) for _, what, first, second in link_events(store)]

    with opened(engine, tmp_path) as store:
        written(store, PutNode(a_node(7, duid(7), mac(7)), True))
        binding = a_binding(the_pool(domain_of(store)), 1, 7)
        assigned = Record(event(EventType.ASSIGNED, binding))
        written(store, PutBinding(binding, True), assigned)
        began = now()
        expected = [("linked", str(duid(7)), str(NAI)), ("unlinked", str(NAI), str(duid(7)))]
        for _ in range(2):  # said again, it is no news
            assert run(store, tmp_path, str(duid(7)), str(NAI)) == 0
        assert node(store, tmp_path, "unlink", str(NAI), str(duid(7))) == 0
        assert node(store, tmp_path, "unlink", str(NAI), str(duid(7))) == 2
        assert said() == expected
        # The identifier of a node that nobody linked is the operator's to part, too.
        written(store, PutNode(a_node(8, duid(8), mac(8)), True))
        assert node(store, tmp_path, "unlink", str(duid(8)), str(mac(8))) == 0
        expected.append(("unlinked", str(duid(8)), str(mac(8))))
        assert said() == expected
        assert all(began <= at <= now() for at, *_ in link_events(store))
        for forbidden in ("DELETE FROM node_link_event", "UPDATE node_link_event SET first = 'x'"):
            with pytest.raises(StoreError, match="append-only"), store.administration() as made:
                made.exec_driver_sql(forbidden)
        # Who prunes forgets it, but for what still holds.
        assert run(store, tmp_path, str(duid(9)), str(NAI)) == 0
        assert prune(store, now() + 1, now()).events == 3
        assert said() == [("linked", str(duid(9)), str(NAI))]
        with store.administration() as connection:
            (shown,) = connection.exec_driver_sql("SELECT event, first, second FROM link_events")
        assert tuple(shown) == said()[0]
