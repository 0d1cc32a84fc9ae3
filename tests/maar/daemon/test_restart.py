"""A daemon that is killed, restarted or without disk space: traffic goes on, and so do its sessions."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address
from dmm_wire.mobility import HomeNetworkPrefix, Timestamp
from lab import netns
from tests.maar.daemon.actors import PEER, Node
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.monitor import Event
from tests.maar.daemon.running import Running
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import accepted, acknowledged, leads_to, lies_behind, update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

NOWHERE = bytes(16)


def arrive(place: Site, node: Node, generation: int) -> None:
    """The node comes from PEER, where a prefix of its is anchored."""
    place.exchange(
        node,
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(node.prefix(1), 1800, 3600),
        dmm.PreviousMaar(node.prefix(2), 0, 3000, False, PEER),
    )


def logged(running: Running, text: str, times: int) -> None:
    """Wait until the log has so many lines with `text`."""
    netns.wait_for(
        lambda: running.log.read_text().count(text) >= times,
        timeout=10,
        what=f"{times} x {text!r} in the log",
        interval=0.002,
    )


def test_killed_between_request_and_answer(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node, generation = place.node(), place.generation()
    node.send(node.message())
    forward = place.cmd.take_from(node).data
    own.kill()
    own.start()
    # A relay agent keeps nothing about a message: the answer finds its way.
    place.cmd.reply(
        forward,
        node.reply(),
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(node.prefix(1), 9, 99),
    )
    assert node.take().data == node.reply()
    (route,) = place.routes(node.prefix(1))
    assert lies_behind(route, node)
    assert Timestamp(generation) in place.peer.take_update(node)[0].options


def test_killed_between_kernel_and_acknowledgement(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node, gone, generation = place.node(), place.node(), place.generation()
    arrive(place, node, generation)
    first, _ = place.peer.take_update(node)
    place.peer.send(update(gone, 5, place.generation(), gone.prefix(1)))
    assert place.peer.take_answer(5).accepted
    rules = place.rules()
    session = own.session(node)
    assert session is not None
    monitor = place.monitor()
    own.kill()
    own.start()

    again, _ = place.peer.take_update(node)
    assert Timestamp(generation) in again.options
    assert HomeNetworkPrefix(node.prefix(2)) in again.options
    assert first.lifetime - 8 <= again.lifetime <= first.lifetime
    assert acknowledged(own, node) == {format_address(PEER): False}
    place.peer.send(accepted(again))
    own.counts("pba.accepted")
    assert acknowledged(own, node) == {format_address(PEER): True}

    taken_up = own.session(node)
    assert taken_up is not None
    for name in ("generation", "serving", "previous", "attachment", "here"):
        assert taken_up[name] == session[name]
    for before, after in zip(session["prefixes"], taken_up["prefixes"], strict=True):
        assert {**after, "lifetime": 0} == {**before, "lifetime": 0}
        assert before["lifetime"] - 10 < after["lifetime"] <= before["lifetime"]
    # No packet met a gap: nothing that carries this traffic was removed, not for a moment.
    assert monitor.dropped(node.prefix(1), node.prefix(2), gone.prefix(1)) == []
    assert Event("drop", "neighbour", format_address(node.link_local)) not in monitor.events
    assert all(
        lies_behind(route, node) for each in (1, 2) for route in place.routes(node.prefix(each))
    )
    (route,) = place.routes(gone.prefix(1))
    assert leads_to(route, PEER)
    assert place.rules() == rules
    # It knows its peers from its file, before the CMD has spoken.
    assert own.status()["domain"] == {
        "known": False,
        "mode": "direct",
        "peers": ["2001:db8:f2::1", "2001:db8:f3::1"],
    }


@pytest.mark.parametrize("moment", ["saved", "installed", "told"])
def test_killed_while_it_takes_in_a_pbu(place: Site, own: Running, moment: str) -> None:
    in_its_domain(place, own)
    node = place.node()
    local = node.prefix(1)
    place.exchange(node, dmm.Visit(place.generation(), NOWHERE), dmm.AnchoredPrefix(local, 9, 99))
    file = own.directory / "state/sessions.jsonl"
    size, monitor = file.stat().st_size, place.monitor()
    reached: dict[str, Callable[[], bool]] = {
        "saved": lambda: file.stat().st_size > size,
        "installed": lambda: Event("put", "route", str(local)) in monitor.read(),
        "told": lambda: bool(place.peer.arrived()),
    }
    place.peer.clear()
    message = update(node, 21, place.generation(), local)
    place.peer.send(message)
    netns.wait_for(reached[moment], timeout=10, what=moment, interval=0)
    own.kill()
    own.start()
    # What was said is done, what was saved is taken up; at the latest the retransmission does it.
    (route,) = place.routes(local)
    assert leads_to(route, PEER)
    place.peer.clear()
    place.peer.send(update(node, 22, own_generation(message), local))
    assert place.peer.take_answer(22).accepted
    (route,) = place.routes(local)
    assert leads_to(route, PEER)
    assert monitor.dropped(local) == []


@pytest.mark.parametrize("moment", ["saved", "installed"])
def test_killed_while_a_node_comes(place: Site, own: Running, moment: str) -> None:
    in_its_domain(place, own)
    node, generation = place.node(), place.generation()
    file = own.directory / "state/sessions.jsonl"
    size, monitor = file.stat().st_size, place.monitor()
    prefixes = (node.prefix(1), node.prefix(2))
    reached: dict[str, Callable[[], bool]] = {
        "saved": lambda: file.stat().st_size > size,
        "installed": lambda: Event("put", "route", str(node.prefix(2))) in monitor.read(),
    }
    node.send(node.message())
    visit = (
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(node.prefix(1), 1800, 3600),
        dmm.PreviousMaar(node.prefix(2), 0, 3000, False, PEER),
    )
    place.cmd.reply(place.cmd.take_from(node).data, node.reply(), *visit)
    netns.wait_for(reached[moment], timeout=10, what=moment, interval=0)
    own.kill()
    place.peer.clear()
    own.start()
    # Saved is as good as done: the routes are there and PEER is told, before anybody asks again.
    assert Timestamp(generation) in place.peer.take_update(node)[0].options
    assert all(lies_behind(route, node) for each in prefixes for route in place.routes(each))
    assert [len(place.routes(each)) for each in prefixes] == [1, 1]
    assert monitor.dropped(*prefixes) == []
    # The node, which may have no answer, asks again and has one.
    node.clear()
    place.exchange(node, *visit)
    assert monitor.dropped(*prefixes) == []


def own_generation(message: object) -> int:
    options = getattr(message, "options", ())
    return next(option.value for option in options if isinstance(option, Timestamp))


def test_a_start_puts_right_what_it_finds(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    lost, kept = place.node(), place.node()
    for node in (lost, kept):
        arrive(place, node, place.generation())
    own.kill()
    netns.batch(
        (
            f"route del {lost.prefix(1)} proto 213",
            f"route replace {lost.prefix(2)} dev core0 proto 213 metric 128",
            "route add 2001:db8:1:1ff::/64 dev core0 proto 213",
            "route add unreachable 2001:db8:1:1fe::/64 proto 213 metric 128",
            f"route del default from {lost.prefix(2)} table 21302 metric 128",
            "route add default from 2001:db8:1:1fd::/64 dev core0 table 21302 metric 128 proto 213",
            "route add 2001:db8:77::/64 dev core0 proto 99",
        ),
        namespace=place.maar,
    )
    for source, protocol in (("2001:db8:78::/64", 213), ("2001:db8:79::/64", 99)):
        rule = f"-6 rule add from {source} lookup 21399 protocol {protocol}"
        netns.ip(*rule.split(), namespace=place.maar)
    try:
        monitor = place.monitor()
        own.start()
        for prefix in (lost.prefix(1), lost.prefix(2)):
            (route,) = place.routes(prefix)
            assert lies_behind(route, lost)
        assert len(place.ways(lost.prefix(2))) == len(place.ways(kept.prefix(2))) == 2
        assert place.ways(Prefix.parse("2001:db8:1:1fd::/64")) == []
        assert place.routes("2001:db8:1:1ff::/64") == []
        assert place.routes("2001:db8:1:1fe::/64") == []
        assert monitor.dropped(kept.prefix(1), kept.prefix(2)) == []
        # What is not ours is not touched.
        assert len(place.routes("2001:db8:77::/64")) == 1
        sources = [rule["src"] for rule in place.rules()]
        assert "2001:db8:78::" not in sources
        assert "2001:db8:79::" in sources
    finally:
        for what in (
            "route del 2001:db8:77::/64 proto 99",
            "rule del from 2001:db8:79::/64 lookup 21399 protocol 99",
        ):
            netns.ip("-6", *what.split(), namespace=place.maar)


def test_what_ended_while_nobody_looked_is_not_taken_up(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node = place.node()
    place.exchange(
        node, dmm.Visit(place.generation(), NOWHERE), dmm.AnchoredPrefix(node.prefix(1), 1, 1)
    )
    assert place.routes(node.prefix(1))
    own.kill()
    own.start()
    netns.wait_for(lambda: not place.routes(node.prefix(1)), timeout=5, what="the end of a prefix")


def test_a_damaged_session_file_costs_what_is_damaged(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    nodes = [place.node() for _ in range(3)]
    for node in nodes:
        arrive(place, node, place.generation())
    own.kill()
    file = own.directory / "state/sessions.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    middle = str(nodes[1].identity).encode()
    lines = [
        line.replace(b'"generation":', b'"gen":') if middle in line else line for line in lines
    ]
    file.write_bytes(b"\xff\xfe{]\n".join(lines)[:-20])
    own.start()
    assert own.session(nodes[0]) is not None
    assert own.session(nodes[1]) is None
    assert place.routes(nodes[1].prefix(1)) == []
    arrive(place, nodes[1], place.generation())
    assert own.session(nodes[1]) is not None


def test_restart_keeps_the_traffic_and_reads_the_configuration_anew(
    place: Site, own: Running
) -> None:
    in_its_domain(place, own)
    node, gone = place.node(), place.node()
    arrive(place, node, place.generation())
    place.peer.send(accepted(place.peer.take_update(node)[0]))
    place.peer.send(update(gone, 31, place.generation(), gone.prefix(1)))
    assert place.peer.take_answer(31).accepted
    own.counts("pba.accepted")
    monitor, pid = place.monitor(), own.pid
    text = own.config.read_text()
    own.config.write_text(
        text.replace('"2001:db8:1:200::/56"]', '"2001:db8:1:200::/56", "2001:db8:1:300::/56"]')
    )
    done = own.command("restart")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # When the command returns, the new one serves.
    assert own.status()["pools"][-1] == "2001:db8:1:300::/56"
    assert own.pid == pid
    (pool,) = place.routes("2001:db8:1:300::/56")
    assert pool["type"] == "unreachable"
    assert monitor.dropped(node.prefix(1), node.prefix(2), gone.prefix(1)) == []
    assert Event("drop", "neighbour", format_address(node.link_local)) not in monitor.events
    assert acknowledged(own, node) == {format_address(PEER): True}
    assert own.session(gone) is not None
    # And goes on: the node's next message is relayed.
    place.cmd.clear()
    node.send(node.message())
    place.cmd.take_from(node)
    # The pool that is taken away again leaves nothing.
    own.config.write_text(text)
    assert own.command("restart").returncode == 0
    assert place.routes("2001:db8:1:300::/56") == []


def test_a_broken_configuration_does_not_stop_the_running_daemon(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    before = place.snapshot()
    good = own.config.read_text()
    for old, new, fault in (
        ('"2001:db8:f1::1"', '"x"', "endpoint: not an IPv6 address: 'x'"),
        ("access1", "access9", "access interface access9 does not exist"),
    ):
        own.config.write_text(good.replace(old, new))
        done = own.command("restart")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert fault in done.stderr
        # The command may have made the daemon log it already, and the file stays bad until the signal was answered too.
        told = own.log.read_text().count(fault)
        own.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        logged(own, fault, told + 1)
        own.config.write_text(good)
        assert own.status()["domain"]["known"], "the one that ran before runs"
    assert place.snapshot() == before


def test_a_stop_right_after_a_restart_is_not_lost(place: Site, own: Running) -> None:
    before = place.snapshot()
    in_its_domain(place, own)
    assert own.process is not None
    own.process.send_signal(signal.SIGHUP)
    # Now one process image takes the place of another, which has no signal handlers for a while.
    logged(own, "stopped, kernel state kept", 1)
    assert own.end() == 0
    assert place.snapshot() == before


def test_a_start_that_fails_leaves_the_traffic_of_the_one_before(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node = place.node()
    arrive(place, node, place.generation())
    own.kill()
    before, monitor = place.snapshot(), place.monitor()
    text = own.config.read_text()
    for interface in ("core0", "access1"):
        own.config.write_text(text.replace(interface, interface[:-1] + "9"))
        assert own.command("run").returncode == 2
    own.config.write_text(text)
    assert place.snapshot() == before
    assert monitor.dropped(node.prefix(1), node.prefix(2)) == []


def fill(filler: Path) -> None:
    """Write until the disk is full."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1024)):
            pass


def test_a_full_disk_does_not_stop_the_service(place: Site, own: Running) -> None:
    state = own.directory / "state"
    state.mkdir()
    # A private mount: `ip netns exec` gives the daemon a mount namespace of its own.
    own.launch("sh", "-c", f'mount -t tmpfs -o size=64k tmpfs {state} && exec "$@"', "sh")
    own.wait_until_ready()
    filler = Path(f"/proc/{own.pid}/root{state}/filler")
    fill(filler)
    nodes: list[Node] = []
    while not own.count("session-file-error") or len(nodes) < 12:
        assert len(nodes) < 40
        nodes.append(place.node())
        place.exchange(
            nodes[-1],
            dmm.Visit(place.generation(), NOWHERE),
            dmm.AnchoredPrefix(nodes[-1].prefix(1), 1800, 3600),
        )
        assert place.routes(nodes[-1].prefix(1))
    assert own.count("session-file-error") > 1
    assert own.log.read_text().count("session file: No space left on device") == 1
    filler.unlink()
    # Without any event of a node: it tries again by itself.
    logged(own, "session file: written again", 1)
    assert own.process is not None
    own.process.send_signal(signal.SIGHUP)
    logged(own, f"{len(nodes)} sessions taken up again", 1)
    own.wait_until_ready()
    assert all(own.session(node) is not None for node in nodes)
