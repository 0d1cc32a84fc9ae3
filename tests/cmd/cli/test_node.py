"""`dhcp-cmd node link`: two identifiers that are one node's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhcp_cmd import cli
from dhcp_cmd.commands.context import ENVIRONMENT, Mistake
from dhcp_cmd.commands.node import identity
from dhcp_cmd.core.model import EventType, Lookup, PutBinding, PutNode, Record
from dhcp_cmd.store import SqlStore, maintenance
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    event,
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


def test_who_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened("sqlite", tmp_path) as store:
        assert run(store, tmp_path, str(NAI), str(mac(1))) == 2
        told = f"dhcp-cmd: no node is known by {NAI} or {mac(1)}\n"
        assert capsys.readouterr() == ("", told)


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
