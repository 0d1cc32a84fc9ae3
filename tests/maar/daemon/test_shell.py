"""The shell between core and kernel, with a core that only takes notes: the order of things, and what a fault costs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmm_wire.address import Prefix
from dmm_wire.identity import Identity
from relay_maar.config import parse
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import Change, Drop, Item, Key, Put, Route, Unreachable
from relay_maar.daemon import Daemon
from relay_maar.io.frames import Frame
from relay_maar.io.sockets import Received
from relay_maar.southbound.api import DriverUnavailable, State
from relay_maar.southbound.fake import FakeKernel, FakeSouthbound
from tests.maar.daemon.running import CONFIGURATION

CONFIG = parse(CONFIGURATION.format(directory="/nowhere"), "maar.toml")
LINKS = ("access0", "access1")
FIRST, SECOND = (Route(Prefix.parse(f"2001:db8:1:10{n}::/64"), Unreachable()) for n in (1, 2))


class Core(Agent):
    """Answers an Apply with a line that names it and what failed."""

    def __init__(self) -> None:
        super().__init__(
            CONFIG.agent(dict.fromkeys(LINKS, bytes(6)), dict.fromkeys(LINKS, 1460)),
            jitter=lambda: 0,
        )
        self.answers: list[tuple[tuple[int, ...], dict[Key, str]]] = []

    def applied(
        self, token: int | Sequence[int], failures: Mapping[Key, str], now: float
    ) -> list[act.Action]:
        tokens = (token,) if isinstance(token, int) else tuple(token)
        self.answers.append((tokens, dict(failures)))
        return [act.SendToServers(b"%d" % each) for each in tokens]

    def deadline(self) -> float | None:
        return None


class Noted(FakeSouthbound):
    """Notes the batches that it is asked for."""

    noted: list[object]

    def apply(self, changes: Sequence[Change]) -> None:
        self.noted.append(tuple(changes))
        super().apply(changes)


class Shell:
    """A daemon that was not started: no socket, a kernel of its own."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.core = Core()
        self.southbound = Noted(CONFIG.southbound(), self.kernel)
        self.daemon = Daemon(CONFIG, Path("maar.toml"), self.southbound)
        self.done: list[object] = []
        """What was written, brought into the kernel and sent, in order."""
        self.southbound.noted = self.done
        self.daemon._storage = SimpleNamespace(write=self.done.append)  # type: ignore[assignment]
        self.daemon._work_for(self.core, self.southbound)

    def connect(self) -> None:
        """From now on there is a core interface."""
        core = SimpleNamespace(server=SimpleNamespace(send=self._sent))
        self.daemon._links._core = core  # type: ignore[assignment]

    def _sent(self, destination: bytes, data: bytes) -> None:
        self.done.append(data)

    def run(self, *actions: act.Action) -> None:
        self.daemon._call(lambda *, now: list(actions))

    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.daemon._control("status", {})["counters"]
        return counters


@pytest.fixture
def shell(caplog: pytest.LogCaptureFixture) -> Shell:
    caplog.set_level(logging.INFO, "relay-maar")
    return Shell()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_all_that_waits_is_written_once_then_goes_to_the_kernel_once_then_is_said(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    shell.connect()
    node, other = (Identity(1, name) for name in (b"node", b"other"))
    shell.run(
        act.SaveSession(node, {"n": 1}),
        act.Apply(1, (Put(FIRST),)),
        act.SendToServers(b"listed"),
        act.Log("info", "told"),
        act.SaveSession(other, {"n": 2}),
        act.Apply(2, (Put(SECOND),)),
        act.SaveSession(node, {"n": 3}),
    )
    assert lines(caplog) == ["told"]
    assert shell.core.answers == [((1, 2), {})]
    assert shell.done == [
        {str(node): {"n": 3}, str(other): {"n": 2}},
        (Put(FIRST), Put(SECOND)),
        b"listed",
        b"1",
        b"2",
    ]
    assert shell.kernel.items == {FIRST.key: FIRST, SECOND.key: SECOND}


def test_what_comes_of_the_kernels_answer_is_written_and_made_before_anything_is_said(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.connect()
    node = Identity(1, b"node")

    def applied(
        token: int | Sequence[int], failures: Mapping[Key, str], now: float
    ) -> list[act.Action]:
        if token == [2]:
            return []
        return [act.SendToServers(b"?"), act.ForgetSession(node), act.Apply(2, (Drop(FIRST),))]

    monkeypatch.setattr(shell.core, "applied", applied)
    shell.run(act.Apply(1, (Put(FIRST),)))
    assert shell.done == [(Put(FIRST),), {str(node): None}, (Drop(FIRST),), b"?"]


def test_the_core_hears_what_the_kernel_refused(shell: Shell) -> None:
    shell.kernel.refuse = lambda change: "ENOBUFS: no" if change.item == FIRST else None
    shell.run(act.Apply(1, (Put(FIRST), Put(SECOND))))
    assert shell.core.answers == [((1,), {FIRST.key: "ENOBUFS: no"})]
    assert shell.kernel.items == {SECOND.key: SECOND}


def test_the_core_has_an_answer_whatever_the_driver_does(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(changes: Sequence[Change]) -> None:
        raise TimeoutError("netlink")

    monkeypatch.setattr(shell.southbound, "apply", broken)
    shell.connect()
    shell.run(act.Apply(1, (Put(FIRST), Put(SECOND))), act.SendToServers(b"goes on"))
    ((tokens, failures),) = shell.core.answers
    assert (tokens, set(failures)) == ((1,), {FIRST.key, SECOND.key})
    assert shell.done == [b"goes on", b"1"]
    assert lines(caplog) == ["internal error; the service goes on without what it met"]
    assert shell.counters()["internal-error"] == 1


def test_a_fault_costs_the_one_thing_it_met(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    def faulty(**_: Any) -> list[act.Action]:
        raise RuntimeError("a fault of ours")

    shell.daemon._call(faulty)
    # No such level: nothing that a core says, but it must not cost what else it says.
    shell.run(act.Log("loud", "?"), act.Apply(1, (Put(FIRST),)))
    assert shell.core.answers == [((1,), {})]
    assert shell.counters()["internal-error"] == 2
    assert sum(record.exc_info is not None for record in caplog.records) == 2


def test_what_cannot_be_sent_is_counted_by_reason(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unreachable:
        def send(self, destination: bytes, data: bytes) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(shell.daemon._links, "_core", SimpleNamespace(server=Unreachable()))
    shell.run(act.SendToServers(b"1"), act.SendToServers(b"2"), act.Log("info", "goes on"))
    assert shell.counters()["send-server-ENETUNREACH"] == 2
    assert lines(caplog) == ["goes on"]


def test_nothing_is_decided_by_a_method_that_is_not_there(shell: Shell) -> None:
    for command in ("", "__init__", "stop\n"):
        assert "error" in shell.daemon._control(command, {})


def test_what_the_kernel_holds_goes_to_the_core_whenever_it_is_compared(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[frozenset[Item]] = []

    def changed(found: frozenset[Item], now: float) -> list[act.Action]:
        told.append(found)
        return [act.Apply(1, (Put(SECOND),))]

    monkeypatch.setattr(shell.core, "kernel_changed", changed)
    shell.kernel.gone = {"core0", "access0", "access1"}
    shell.kernel.items[FIRST.key] = FIRST
    assert shell.daemon._compare()
    assert told == [{FIRST}]
    assert SECOND.key in shell.kernel.items
    assert shell.daemon._control("status", {})["links"]["access0"] == "gone"


def test_a_kernel_that_cannot_be_read_is_told_and_asked_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> State:
        raise DriverUnavailable("seg6: netlink: timed out")

    monkeypatch.setattr(shell.daemon._southbound, "restore", unreadable)
    assert not shell.daemon._compare()
    assert lines(caplog) == ["the kernel's state cannot be read: seg6: netlink: timed out"]
    assert shell.counters()["kernel.unread"] == 1


def test_a_fault_in_a_comparison_costs_that_one_only(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty() -> State:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(shell.daemon._southbound, "restore", faulty)
    assert not shell.daemon._compare()
    assert shell.counters()["internal-error"] == 1


def test_what_was_put_right_besides_the_items_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = State(0, (), frozenset(), repaired=3, faults=("router identity on access0: EBUSY",))
    monkeypatch.setattr(shell.daemon._southbound, "restore", lambda: state)
    assert not shell.daemon._compare()
    assert not shell.daemon._compare()
    assert shell.counters()["kernel.repaired"] == 6
    assert lines(caplog).count("router identity on access0: EBUSY") == 1


class Arriving:
    """A link's sockets, to which the kernel brings a datagram's frame before the datagram."""

    interface = "access0"

    def __init__(self, number: int) -> None:
        self._left = number
        self._frames: list[Frame] = []
        self.frames = SimpleNamespace(receive=self._frame, holds_more=lambda: bool(self._frames))
        self.client = SimpleNamespace(receive=self._datagram, holds_more=lambda: bool(self._left))

    def _frame(self) -> Frame | None:
        return self._frames.pop(0) if self._frames else None

    def _datagram(self) -> Received | None:
        if not self._left:
            return None
        self._left -= 1
        source = bytes(15) + bytes((self._left,))
        self._frames.append(Frame(source[-6:], source, "dhcpv6", b"abc"))
        return Received(source, b"\1abc")


def test_the_frame_of_a_datagram_that_comes_while_others_are_read_is_known(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[bytes, bytes | None]] = []

    def client_datagram(
        interface: str, source: bytes, link_layer: bytes | None, data: bytes, now: float
    ) -> list[act.Action]:
        heard.append((source, link_layer))
        return []

    monkeypatch.setattr(shell.core, "client_datagram", client_datagram)
    shell.daemon._read_client(Arriving(100))  # type: ignore[arg-type]
    assert len(heard) == 100
    assert all(link_layer == source[-6:] for source, link_layer in heard)


def test_packets_of_unknown_hosts_are_read_a_few_at_a_time(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that sends as fast as it can does not keep the daemon from its work."""
    source = Prefix.parse("2001:db8:1:101::/64").address[:15] + b"\7"
    waiting = [Frame(b"\2\0\0\0\4" + bytes((n,)), source, "data") for n in range(80)]
    strangers = SimpleNamespace(
        receive=lambda: waiting.pop(0) if waiting else None, holds_more=lambda: bool(waiting)
    )
    access: Any = SimpleNamespace(interface="access0", strangers=strangers)
    rests: list[object] = []
    monkeypatch.setattr(shell.daemon._links, "rest", lambda *what: rests.append(what))
    for left in (48, 16, 0):
        shell.daemon._read_strangers(access)
        assert len(waiting) == left
    assert rests == [(access, strangers, 0.01)] * 2
    assert shell.counters()["attach.packets-paused"] == 2
    assert shell.counters()["attach.seen-data"] == 80
