"""The parts of the fault run that are pure: what it draws, what it takes for right, and its client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage, first, parse
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix, StatusOption
from lab.command import FAILED, MISTAKE
from lab.daemons import DIRECT
from lab.faults import cli, frames
from lab.faults.client import Client
from lab.faults.itinerary import Deed, itinerary
from lab.faults.oracle import Truth, View, differences
from lab.faults.run import FaultRun, Result, Settings
from lab.faults.weather import FAIR, Fates, Weather
from lab.kernel import UNREACHABLE, Decision
from lab.netns import LabError
from lab.topology import MAAR_PLANS, MAARS, MaarPlan

ONE, TWO, THREE = MAAR_PLANS
A, B = ONE.endpoint, TWO.endpoint
ROUTER = "maar3"
MAC = bytes.fromhex("02005e005401")


# --- what is drawn ---


def test_the_same_seed_has_the_same_weather_in_each_direction() -> None:
    one, other = Fates(7, Weather()), Fates(7, Weather())
    there = [one.next(A, B) for _ in range(200)]
    for _ in range(50):
        other.next(B, A)  # what goes on elsewhere changes nothing
    assert [other.next(A, B) for _ in range(200)] == there
    assert [Fates(8, Weather()).next(A, B) for _ in range(200)] != there


def test_the_weather_is_as_bad_as_it_says() -> None:
    fates = Fates(1, Weather())
    drawn = [fates.next(A, B) for _ in range(10_000)]
    assert 0.19 < sum(not fate for fate in drawn) / len(drawn) < 0.21
    arrived = [fate for fate in drawn if fate]
    assert 0.09 < sum(len(fate) == 2 for fate in arrived) / len(arrived) < 0.11
    assert 0.28 < sum(fate[0] > 0 for fate in arrived) / len(arrived) < 0.32
    fair = Fates(1, FAIR)
    assert {fair.next(A, B) for _ in range(100)} == {(0.0,)}


def test_an_itinerary_has_its_moves_and_ends_in_peace() -> None:
    for seed in range(20):
        stays = itinerary(Random(seed), 50)
        moves = sum(a.maar != b.maar for a, b in pairwise(stays))
        assert moves == 50
        assert {stay.maar for stay in stays} == set(MAARS)
        assert not stays[-1].hasty
        assert stays[-1].deed is Deed.NOTHING
        assert itinerary(Random(seed), 50) == stays
    assert len(itinerary(Random(1), 0)) == 1


# --- what is right ---


def pools(plan: MaarPlan) -> dict[Prefix, tuple[Decision, ...]]:
    return {plan.link_pool: (UNREACHABLE,), plan.delegated_pool: (UNREACHABLE,)}


P1, P2 = Prefix.parse("2001:db8:101::/64"), Prefix.parse("2001:db8:201::/64")
NODE = Truth("node 1", MAC, frames.link_local(MAC), TWO, frozenset((P1, P2)))
HERE = (Decision(ROUTER, via=NODE.link_local),)
TO_TWO, TO_THREE = ((Decision("core", peer=plan.endpoint),) for plan in (TWO, THREE))


def right() -> dict[MaarPlan, View]:
    """A node at MAAR 2, which has been at MAAR 1 and MAAR 3."""
    served = pools(TWO) | {P1: HERE, P2: HERE}
    return {
        ONE: View(ROUTER, pools(ONE) | {P1: TO_TWO}),
        TWO: View(ROUTER, served, {P1: (ONE.endpoint,)}, {NODE.link_local: MAC}),
        THREE: View(ROUTER, pools(THREE) | {P1: TO_TWO}),
    }


def changed(plan: MaarPlan, **values: object) -> list[str]:
    views = right()
    views[plan] = replace(views[plan], **values)  # type: ignore[arg-type]
    return differences(views, [NODE])


def test_what_is_right_is_right() -> None:
    assert differences(right(), [NODE]) == []
    # What still comes to MAAR 3 may as well go by the core.
    assert changed(THREE, routes=pools(THREE)) == []


@pytest.mark.parametrize(
    ("plan", "values", "said"),
    [
        (ONE, {"routes": pools(ONE)}, "none, expected tunnel to maar2"),
        (ONE, {"routes": pools(ONE) | {P1: TO_THREE}}, "tunnel to maar3, expected tunnel to maar2"),
        (ONE, {"routes": pools(ONE) | {P1: TO_TWO + TO_TWO}}, "and tunnel"),
        (ONE, {"routes": {P1: TO_TWO}}, f"route to {ONE.link_pool} of nobody: none, expected unr"),
        (ONE, {"neighbours": {NODE.link_local: MAC}}, "expected none"),
        (ONE, {"sources": {P2: (TWO.endpoint,)}}, "maar2, expected none"),
        (TWO, {"sources": {}}, "none, expected maar1"),
        (TWO, {"sources": {P1: (THREE.endpoint,)}}, "maar3, expected maar1"),
        (TWO, {"sources": {P1: (None,)}}, "nobody, expected maar1"),
        (TWO, {"neighbours": {}}, "neighbour"),
        (TWO, {"routes": pools(TWO) | {P1: HERE}}, f"to {P2} of node 1 at maar2: maar2, unreach"),
        (THREE, {"routes": pools(THREE) | {P1: (UNREACHABLE,)}}, "unreachable, expected tunnel"),
        (THREE, {"routes": pools(THREE) | {P2: TO_THREE}}, "tunnel to maar3"),
    ],
)
def test_what_is_wrong_is_named(plan: MaarPlan, values: dict[str, object], said: str) -> None:
    wrong = changed(plan, **values)
    assert any(said in line for line in wrong), wrong


def test_a_loop_is_named() -> None:
    views = right()
    views[ONE] = View(ROUTER, pools(ONE) | {P1: TO_THREE})
    views[THREE] = View(ROUTER, pools(THREE))
    path = "maar1, maar3, maar1, maar3, maar1"
    assert f"to {P1} of node 1 at maar2: {path}, none" in differences(views, [NODE])


def test_the_trace_of_what_has_ended_may_stay_for_a_while() -> None:
    views = {plan: View(ROUTER, pools(plan)) for plan in MAAR_PLANS}
    assert differences(views, []) == []
    views[TWO] = View(ROUTER, pools(TWO) | {P1: (UNREACHABLE,)})
    assert differences(views, [], echoes=True) == []
    (line,) = differences(views, [])
    assert line == f"maar2: route to {P1} of nobody: unreachable, expected none"
    views[TWO] = View(ROUTER, pools(TWO) | {P1: TO_THREE})
    assert differences(views, [], echoes=True)


# --- the client ---


def sent(out: list[bytes]) -> ClientMessage:
    (frame,) = out
    parsed = frames.parse(frame)
    assert parsed is not None
    message = parse(parsed.data)
    assert isinstance(message, ClientMessage)
    return message


ADDRESS, DELEGATED = parse_address("2001:db8:101::7"), Prefix.parse("2001:db8:d101::/56")


def reply(client: Client, to: ClientMessage, *, valid: int = 60, status: int = 0) -> bytes:
    options = [
        (int(OptionCode.CLIENTID), client.duid),
        (int(OptionCode.SERVERID), b"server"),
        IaNa(1, 0, 0, (IaAddress(ADDRESS, 30, valid).encode(),)).encode(),
        IaPd(1, 0, 0, (IaPrefix(DELEGATED, 0, valid).encode(),)).encode(),
    ]
    if status:
        options = [*options[:2], StatusOption(status).encode()]
    kind = MessageType.ADVERTISE if is_solicit(to) else MessageType.REPLY
    return ClientMessage(kind, to.transaction_id, tuple(options)).encode()


def is_solicit(message: ClientMessage) -> bool:
    return message.type == MessageType.SOLICIT


def bound() -> Client:
    client = Client(MAC, Random(1))
    solicit = sent(client.attach(0.0, afresh=False))
    request = sent(client.receive(reply(client, solicit), 0.1))
    assert request.type == MessageType.REQUEST
    assert first(request.options, OptionCode.SERVERID) == b"server"
    assert client.receive(reply(client, request), 0.2) == []
    return client


def test_four_messages_and_what_they_give() -> None:
    client = bound()
    assert not client.busy
    assert client.prefixes == {Prefix.of(ADDRESS, 64): True, DELEGATED: False}
    assert not client.problems
    assert sent(client.attach(1.0, afresh=False)).type == MessageType.REBIND
    assert sent(client.attach(2.0, afresh=True)).type == MessageType.SOLICIT
    assert client.prefixes == {}


def test_it_repeats_as_the_rfc_says() -> None:
    client = Client(MAC, Random(1))
    first_one = sent(client.attach(0.0, afresh=False))
    times = [0.0]
    for _ in range(4):
        when = client.deadline()
        assert when is not None
        assert client.due(when - 0.01) == []
        again = sent(client.due(when))
        assert again.transaction_id == first_one.transaction_id
        times.append(when)
    waits = [b - a for a, b in pairwise(times)]
    assert 0.9 <= waits[0] <= 1.1
    assert all(1.9 * a <= b <= 2.1 * a for a, b in pairwise(waits))


def test_a_release_is_given_up_after_four() -> None:
    client = bound()
    sent(client.release(1.0, set(client.leases)))
    assert client.leases == {}
    count = 1
    while (when := client.deadline()) is not None:
        count += len(client.due(when))
    assert count == 4
    assert not client.busy


def test_what_a_server_must_not_do_is_noted() -> None:
    client = bound()
    rebind = sent(client.attach(1.0, afresh=False))
    assert client.receive(reply(client, rebind, status=StatusCode.UNSPEC_FAIL), 1.1) == []
    assert client.busy  # it asks again
    client.receive(reply(client, rebind, status=StatusCode.USE_MULTICAST), 1.2)
    assert [line.partition(" ")[0] for line in client.problems] == ["REBIND", "a"]
    client = bound()
    rebind = sent(client.attach(1.0, afresh=False))
    client.receive(reply(client, rebind, valid=0), 1.1)
    assert client.leases == {}
    assert client.problems == []


# --- the command ---


@pytest.mark.parametrize(
    "arguments", [["--mode", "sideways"], ["--mode", "relay", "--stock"], ["--moves", "-1"]]
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert cli.run(arguments) == MISTAKE
    assert capsys.readouterr().err.startswith("faults: ")


@pytest.mark.parametrize(("problems", "status"), [([], 0), (["probe 7 went round"], FAILED)])
def test_what_is_wrong_is_told_and_is_the_status(
    problems: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Run:
        def __init__(self, settings: Settings, *_: object) -> None:
            self.settings = settings

        def run(self) -> Result:
            return Result(self.settings, circled=len(problems), problems=problems)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(cli, "FaultRun", Run)
    assert cli.run(["--mode", "proxy", "--seed", "1"]) == status
    said = capsys.readouterr().out
    assert said.startswith("seed 1\n")
    assert all(f"proxy: {each}" in said for each in problems)


class _Part:
    """A part of a fault run, of which only what has arrived is asked; and a loop that ends when it is told to."""

    def __init__(self, arrivals: Counter[Any]) -> None:
        self.arrivals = arrivals

    def run(self, done: Callable[[], bool], **_: object) -> None:
        if not done():
            raise LabError("it takes too long")


def test_a_packet_that_is_lost_or_doubled_or_astray_is_told() -> None:
    run: Any = FaultRun(Settings(DIRECT, moves=0, nodes=0, seed=1), "none")
    there, twice, never, astray = ((b"mac", 1, text) for text in (b"a", b"b", b"c", b"d"))
    run._air = _Part(Counter({there: 1, twice: 2, astray: 1}))
    run._probes = run._loop = _Part(Counter({b"e": 1}))
    run._arrive({there: "here", twice: "next door"}, {b"e": "up"})
    wanted = ["a packet from next door came 2 times", f"a packet reached {astray} by mistake"]
    assert sorted(run.result.problems) == sorted(wanted)
    run.result.problems.clear()
    run._arrive(
        {never: "nowhere", **dict.fromkeys((there, twice, astray), "here")}, {b"f": "below"}
    )
    assert run.result.problems == [
        "a packet from nowhere is lost",
        "a packet from below is lost",
        "a packet from here came 2 times",
    ]
