"""The check of the handovers finds what it has to: a CMD in this process, its database then spoilt by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from bench import domain, packets, prefill, verify
from bench.domain import LIFETIMES, MAARS
from bench.verify import Sent, Verdict
from dhcp_cmd.commands.maar_file import read_maars
from dhcp_cmd.core.model import Settings
from dhcp_cmd.core.request import read_request
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, open_store
from dhcp_cmd.store.admin import add_maars

NODES = 12
SECOND = 1_000_000


class Run:
    """Bound nodes, and messages 0, 1, 2... from them, each from the next node, as the benchmark sends them."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.prefixes, self.after = verify.read_prefixes(store, NODES)
        self.cmd = Cmd(store, Settings(packets.SERVER_DUID, flap_interval=0))
        self.answered: list[bool] = []
        self.stay = False
        self.begun = time.time_ns() // 1000  # the nodes were bound before

    def maar(self, message: int) -> int:
        return (message if self.stay else message + message // NODES + 1) % len(MAARS)

    def send(self, count: int, lost: Sequence[int] = (), unanswered: Sequence[int] = ()) -> None:
        """Messages; `lost` ones do not arrive, of `unanswered` ones the Reply does not."""
        templates = packets.renews() if self.stay else packets.rebinds()
        for message in range(len(self.answered), len(self.answered) + count):
            node, maar = message % NODES, self.maar(message)
            now = self.begun + message * SECOND
            xid = packets.transaction_id(message)
            data = templates[maar].fill(xid, packets.mac(node), self.prefixes[node])
            if message not in lost:
                request = read_request(data, MAARS[maar].source, packets.ENTERPRISE)
                [decision] = self.cmd.handle([request], lambda now=now: now)  # type: ignore[misc]
                assert decision.outcome == "reply"
            self.answered.append(message not in lost and message not in unanswered)

    @property
    def sent(self) -> Sent:
        return Sent(
            self.answered,
            node=lambda message: message % NODES,
            maar=self.maar,
            begin=lambda node: node % len(MAARS),
        )

    def check(self) -> Verdict:
        return verify.handovers(self.store, self.sent, self.after)

    def spoil(self, *statements: str) -> None:
        with self.store.administration() as connection:
            for statement in statements:
                connection.execute(text(statement))


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with bound nodes."""
    directory = tmp_path_factory.mktemp("bound")
    path, maars = directory / "cmd.sqlite", directory / "maars.toml"
    maars.write_text(domain.registration())
    store = open_store(str(path), create=True)
    add_maars(store, read_maars(maars))
    store.close()
    prefill.bind(str(path), NODES)
    return path


@pytest.fixture
def run(bound: Path, tmp_path: Path) -> Iterator[Run]:
    copy = tmp_path / "cmd.sqlite"
    copy.write_bytes(bound.read_bytes())
    store = open_store(str(copy))
    yield Run(store)
    store.close()


def test_nodes_are_bound_in_turn_each_at_its_maar(run: Run) -> None:
    assert len(set(run.prefixes)) == NODES
    for node, prefix in enumerate(run.prefixes):
        assert prefix.hex().startswith(f"3fff0{node % 3 + 1}80")
    assert run.check() == Verdict()


def test_every_answered_message_is_one_handover(run: Run) -> None:
    run.send(3 * NODES + 5)
    assert run.check() == Verdict(answered=41, written=41)


def test_lost_messages_and_lost_replies_are_told_apart(run: Run) -> None:
    # Message 1 never arrives. The Reply to 2 is lost. Node 3 misses two moves and is found where it was.
    run.send(4 * NODES, lost=[1, 3, 3 + NODES], unanswered=[2])
    verdict = run.check()
    assert verdict == Verdict(answered=44, written=44, unanswered=1, at_home=1)
    assert verdict.written == verdict.answered - verdict.at_home + verdict.unanswered


def test_an_answer_without_its_handover(run: Run) -> None:
    run.send(NODES, lost=[4])
    run.answered[4] = True
    assert run.check().problems == ("1 answered messages without their handover, or out of order",)


def test_a_handover_that_nobody_asked_for(run: Run) -> None:
    run.send(NODES)
    run.answered.pop()
    assert (
        run.check().problems
        == (
            "1 handovers by messages that nobody sent, or to another MAAR",
            "1 nodes that are not where their last handover put them",
        )[:1]
    )


def test_a_handover_twice_in_the_history(run: Run) -> None:
    run.send(NODES)
    columns = "at, recorded_at, type, node_id, cause, from_maar_id, to_maar_id, generation, transaction_id"
    newest = "WHERE id = (SELECT max(id) FROM history WHERE type = 'handover')"
    run.spoil(f"INSERT INTO history ({columns}) SELECT {columns} FROM history {newest}")
    assert run.check().problems == ("1 handovers that are in the history twice",)


def test_a_node_that_is_elsewhere(run: Run) -> None:
    run.send(NODES)
    run.spoil(
        "UPDATE mobile_node SET serving_id = serving_id % 3 + 1 "
        "WHERE id = (SELECT max(id) FROM mobile_node)"
    )
    assert run.check().problems == (
        "1 nodes that are not where their last handover put them",
        "1 nodes without a prefix where they are",
    )


def test_a_node_without_a_prefix(run: Run) -> None:
    run.send(NODES)
    run.spoil(
        "DELETE FROM binding WHERE prefix = (SELECT max(prefix) FROM binding WHERE state = 'active')"
    )
    assert run.check().problems == ("1 nodes without a prefix where they are",)


def test_prefixes_that_overlap(run: Run) -> None:
    run.send(NODES)
    run.spoil(
        # The highest one moves into the lowest one.
        "UPDATE binding SET prefix = (SELECT CAST(substr(min(prefix), 1, 15) || x'01' AS BLOB) FROM binding) "
        "WHERE prefix = (SELECT max(prefix) FROM binding)"
    )
    assert run.check().problems == ("1 prefixes that overlap another",)


def test_refreshes_extend_and_write_no_history(run: Run) -> None:
    run.stay = True
    run.send(NODES, lost=[5], unanswered=[6])
    until = run.begun + LIFETIMES[1] * SECOND

    def check() -> Verdict:
        return verify.refreshes(run.store, run.sent, run.after, until)

    assert check() == Verdict(answered=10, written=11, unanswered=1)
    run.answered[5] = True
    assert check().problems == ("1 nodes with a Reply and an old lease",)
    run.stay = False
    run.send(1)
    assert "rows of history for mere refreshes" in check().problems[0]
