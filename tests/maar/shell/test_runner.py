"""In which order the shell does what the core wants: file, kernel, other machines, hosts, log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dmm_wire.mobility import BindingError
from relay_maar.core import actions as act
from relay_maar.core.items import AcceptFrom, Change, Key, Put
from relay_maar.io.runner import Runner
from tests.maar.core.world import ACCESS, MAC, NODE, NODE_ID, SERVER, endpoint

PUT = Put(AcceptFrom(endpoint(2)))
MOBILITY = act.SendMobility(endpoint(2), BindingError(1))
ADVERTISEMENT = act.SendRouterAdvertisement(ACCESS, NODE, b"advertisement", MAC)
SOLICITATION = act.SendNeighborSolicitation(ACCESS, NODE, b"solicitation", MAC)


class Stage:
    """Everything around the runner writes down that it was asked."""

    aside: Callable[[Callable[[float], list[act.Action]]], None]
    """As an agent is told it."""

    def __init__(self, then: Sequence[act.Action] = ()) -> None:
        self.done: list[str] = []
        self._then = then
        sends = {
            name: SimpleNamespace(send=lambda *_, name=name: self.done.append(name))
            for name in ("server", "mobility", "frames", "client", "router")
        }
        links: Any = SimpleNamespace(
            core=SimpleNamespace(server=sends["server"], mobility=sends["mobility"]),
            access=lambda interface: SimpleNamespace(**sends),
            watch=lambda interface, quiet: self.done.append("watch"),
        )
        agent: Any = self
        southbound: Any = self
        self.runner = Runner(agent, southbound, self.save, links, (SERVER,), Counter(), lambda: 0.0)

    def save(self, records: Mapping[str, Any]) -> None:
        self.done.append("file")

    def apply(self, changes: Sequence[Change]) -> None:
        self.done.append("kernel")

    def applied(
        self, tokens: Sequence[int], failures: Mapping[Key, str], now: float
    ) -> list[act.Action]:
        return list(self._then)

    def mobility_header(self, message: act.SendMobility, now: float) -> bytes:
        return b""

    def runs(self, *actions: act.Action) -> list[str]:
        self.runner.add(actions)
        self.runner.run()
        return self.done


def test_what_another_machine_waits_for_goes_out_before_what_a_host_takes_its_time_for() -> None:
    watch = act.WatchPackets(ACCESS, frozenset())
    client = act.SendToClient(ACCESS, NODE, 546, b"reply")
    question = act.SendToServers(b"question")
    done = Stage().runs(ADVERTISEMENT, client, question, SOLICITATION, watch, MOBILITY)
    assert done == ["server", "mobility", "frames", "client", "frames", "watch"]


def test_file_then_kernel_then_everybody_else() -> None:
    stage = Stage(then=(ADVERTISEMENT, MOBILITY))
    apply = act.Apply(1, (PUT,))
    done = stage.runs(act.SendToServers(b""), apply, act.SaveSession(NODE_ID, {}))
    assert done == ["file", "kernel", "server", "mobility", "frames"]


def test_what_can_wait_is_composed_when_other_machines_have_their_messages() -> None:
    stage = Stage()

    def advertised(now: float) -> list[act.Action]:
        stage.done.append("composed")
        return [ADVERTISEMENT, act.SaveSession(NODE_ID, {}), act.Apply(1, (PUT,))]

    stage.aside(advertised)
    done = stage.runs(act.SendToServers(b"question"), act.Apply(1, (PUT,)), MOBILITY)
    assert done == ["kernel", "server", "mobility", "composed", "file", "kernel", "frames"]
    assert len(stage.runs()) == 7, "it is done once"


def test_what_can_wait_costs_nothing_else_when_it_fails() -> None:
    def fails(now: float) -> list[act.Action]:
        raise RuntimeError("a fault of ours")

    stage = Stage()
    stage.aside(fails)
    stage.aside(lambda now: [ADVERTISEMENT])
    assert stage.runs(MOBILITY) == ["mobility", "frames"]


def test_the_log_is_last(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    handler = logging.Handler()
    handler.emit = lambda record: stage.done.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("relay-maar")
    logger.addHandler(handler)
    try:
        with caplog.at_level("INFO", "relay-maar"):
            done = stage.runs(act.Log("info", "it came"), act.Apply(1, (PUT,)), MOBILITY)
    finally:
        logger.removeHandler(handler)
    assert done == ["kernel", "mobility", "it came"]


def test_one_that_fails_costs_no_other() -> None:
    stage = Stage()
    stage.mobility_header = lambda *_, **__: 1 / 0  # type: ignore[assignment,method-assign]
    assert stage.runs(MOBILITY, ADVERTISEMENT) == ["frames"]
