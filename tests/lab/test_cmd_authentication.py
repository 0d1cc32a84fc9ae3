"""CMD and MAARs that share keys, with real daemons and kernels, in the modes in which the CMD speaks PMIPv6."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import pytest

from dmm_wire.mobility import BindingUpdate
from dmm_wire.mobility.authentication import locate
from lab import messages, netns
from lab.checks import Checks
from lab.daemons import Cmd, Daemon
from lab.lab import Lab
from lab.names import CMD_NAME, Names
from lab.packets import Packet
from lab.scenario import MainJob
from lab.topology import CMD, MAAR_PLANS, MAARS
from tests.lab.test_authentication import (
    KEY,
    ONE,
    RIGHT,
    THREE,
    TWO,
    WRONG,
    mend,
    refused,
    replay,
    restart,
    send_again,
    signalling,
    state,
    wait_for_the_tunnel,
)
from tests.lab.test_modes import check_ladder, conclude
from tests.lab.test_pmip import arrive

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"labk{os.getpid()}"
CMD_KEY = """\
    <pmip-security>
        <pmip-key>
            spi 1001
            secret {}
        </pmip-key>
    </pmip-security>
"""
KEYS = {0: CMD_KEY.format(RIGHT)} | dict.fromkeys(MAARS, KEY.format(RIGHT))
_REFUSED = ("auth-repeated", "auth-stale", "auth-unmatched", "pba-unmatched")
"""Where a replay is counted at the CMD; a PBA whose PBU is remembered answers nothing any more."""

KEYED = [("proxy", False), ("locator", True)]
"""A mode, and whether on ipv6-dhcpd (with `dhcp-cmd signal`) or on `dhcp-cmd serve`."""


@pytest.fixture(params=KEYED, ids=lambda case: f"{case[0]}-{'stock' if case[1] else 'serve'}")
def mode(request: pytest.FixtureRequest) -> tuple[str, bool]:
    found: tuple[str, bool] = request.param
    return found


def sender(lab: Lab) -> Daemon:
    """What of the CMD speaks PMIPv6."""
    return lab.daemons.signaller or lab.daemons.cmd


def refused_by(cmd: Cmd) -> dict[str, int]:
    """As the counters are; they may be a second old."""
    return {name: count for name, count in cmd.counters().items() if name.startswith("auth-")}


def restart_all(lab: Lab) -> None:
    """Everybody forgets all but what is on the disk."""
    for daemon in (sender(lab), *lab.daemons.maars.values()):
        daemon.kill()
        daemon.start()
    lab.daemons.wait_until_ready()
    wait_for_the_cmd(lab)


def wait_for_the_cmd(lab: Lab) -> None:
    """Until it hears PMIPv6: what was sent before is lost."""
    before = lab.daemons.cmd.counters().get("auth-unsigned", 0)

    def hears() -> bool:
        sender(lab).check()
        send_again(lab, [], [CMD.packed])
        return lab.daemons.cmd.counters().get("auth-unsigned", 0) > before

    netns.wait_for(hears, timeout=30, what="the CMD to be ready for PMIPv6", interval=0.5)
    said: Mapping[str, int] | None = None

    def is_quiet() -> bool:
        nonlocal said
        said, was = lab.daemons.cmd.counters(), said
        return said == was

    netns.wait_for(is_quiet, timeout=30, what="the last of it to be counted", interval=1.5)


def replay_to_the_cmd(lab: Lab, packets: list[Packet]) -> None:
    """Send them again to the CMD. All have been looked at when this returns, and each was refused."""
    mine = [packet for packet in packets if packet.destination == CMD.packed]
    assert mine
    before = lab.daemons.cmd.counters()
    send_again(lab, mine, [CMD.packed])

    def counted(*reasons: str) -> int:
        found = lab.daemons.cmd.counters()
        return sum(found.get(name, 0) - before.get(name, 0) for name in reasons)

    netns.wait_for(lambda: counted("auth-unsigned") == 1, timeout=10, what="the last message")
    # Some MAARs tell the CMD the time, too, about what was sent to them in its name; it is not believed either.
    assert counted(*_REFUSED) >= len(mine)


def known(lab: Lab) -> object:
    """What a replay could change: at the MAARs, and in the database."""
    views = ("nodes", "bindings", "events", "signals")
    rows = [lab.daemons.cmd.query(f"SELECT * FROM {view} ORDER BY 1, 2, 3") for view in views]
    return [state(lab, plan) for plan in MAAR_PLANS], rows


def test_the_main_job_with_keys_and_what_was_captured_in_it(mode: tuple[str, bool]) -> None:
    checks = Checks()
    with (
        Lab(PREFIX, mode=mode[0], stock=mode[1], more=KEYS) as lab,
        MainJob(lab, checks) as job,
    ):
        job.run()
        captured = signalling(lab)
        assert len(captured) >= 10
        assert all(locate(packet.payload) for packet in captured)
        assert [refused(maar) for maar in lab.daemons.maars.values()] == [{}, {}, {}]
        assert refused_by(lab.daemons.cmd) == {}

        before = known(lab)
        to_maars = [packet for packet in captured if packet.destination != CMD.packed]
        replay(lab, to_maars)
        replay_to_the_cmd(lab, captured)
        restart_all(lab)
        replay(lab, to_maars)
        replay_to_the_cmd(lab, captured)
        assert known(lab) == before
        conclude(lab, job, checks)
    anchors: list[list[str]] = [[], ["MAAR1"], ["MAAR1", "MAAR2"], ["MAAR2", "MAAR3"]]
    for step, expected in zip(job.steps, anchors, strict=True):
        check_ladder(mode[0], step, expected)


@pytest.mark.parametrize("mode", KEYED[:1], ids=["proxy"])
def test_an_anchor_with_a_wrong_key_counts_for_nothing(mode: tuple[str, bool]) -> None:
    """Neither side believes the other; what is owed to it waits until it has the right one."""
    keys = KEYS | {ONE.number: KEY.format(WRONG)}
    checks = Checks()
    with (
        Lab(PREFIX, mode=mode[0], stock=mode[1], more=keys) as lab,
        MainJob(lab, checks, counts_messages=False) as job,
    ):
        job.attach(ONE, "attach")
        one, cmd = lab.daemons.maars[ONE], lab.daemons.cmd
        prefixes = job.prefixes[ONE]
        before = state(lab, ONE)
        lab.topology.move(TWO)
        netns.wait_for(
            lambda: (
                refused(one).get("auth.forged", 0) >= 2 and refused_by(cmd).get("auth-forged", 0)
            ),
            timeout=30,
            what="both to refuse",
        )
        assert state(lab, ONE) == before
        assert len(cmd.query("SELECT * FROM signals")) == 1
        assert "pba-accepted" not in cmd.counters()
        assert "is not signed by the key that it names" in one.log.read_text()
        assert "is not signed by the key that it names" in sender(lab).log.read_text()

        mend(one)
        wait_for_the_tunnel(lab, prefixes)
        settle(lab)


@pytest.mark.timeout(360)
def test_keys_are_changed_by_reload(mode: tuple[str, bool]) -> None:
    """The three steps of docs/security.md, and the node moves after each."""
    old = KEY.format(RIGHT)
    new = '\n[[security.key]]\nspi = 1002\nsecret = "{}"\n'.format("c3" * 32)
    maar_steps = [old + new, new + old, new]
    old_key = f"<pmip-key>\nspi 1001\nsecret {RIGHT}\n</pmip-key>\n"
    new_key = f"<pmip-key>\nspi 1002\nsecret {'c3' * 32}\n</pmip-key>\n"
    cmd_steps = [old_key + new_key, new_key + old_key, new_key]
    checks = Checks()
    with (
        Lab(PREFIX, mode=mode[0], stock=mode[1], more=KEYS) as lab,
        MainJob(lab, checks, counts_messages=False) as job,
    ):
        job.attach(ONE, "attach")
        cmd = lab.daemons.cmd
        before, was = cmd.configuration.read_text(), KEYS[0]
        for number, (place, mine, theirs) in enumerate(
            zip((TWO, THREE, ONE), cmd_steps, maar_steps, strict=True), 1
        ):
            is_now = f"<pmip-security>\n{mine}</pmip-security>\n"
            cmd.configuration.write_text(before.replace(was, is_now))
            os.kill(sender(lab).pid, signal.SIGHUP)
            has_read_again(lab, number)
            for maar in lab.daemons.maars.values():
                text = maar.configuration.read_text()
                start = text.index("\n[[security.key]]")
                maar.configuration.write_text(text[:start] + theirs)
                restart(maar)
                maar.wait_until_ready()
            job.move(place, f"step {number}")
        said = [locate(packet.payload) for packet in signalling(lab)]
        assert {seal.spi for seal in said if seal} == {1001, 1002}
        assert said[-1] is not None
        assert said[-1].spi == 1002
        assert [refused(maar) for maar in lab.daemons.maars.values()] == [{}, {}, {}]
        assert refused_by(cmd) == {}
        conclude(lab, job, checks)


def has_read_again(lab: Lab, number: int) -> None:
    def told() -> bool:
        text = sender(lab).log.read_text()
        assert "not reloading" not in text, text
        return text.count("the configuration was read again") == number

    netns.wait_for(told, timeout=10, what="the configuration to be read again")


@pytest.mark.parametrize("mode", ["proxy", "relay"])
def test_maars_that_register_nodes_with_keys(mode: str) -> None:
    keys = KEYS | {THREE.number: KEY.format(WRONG)}
    with Lab(PREFIX, mode=mode, stock=False, registers=MAAR_PLANS, more=keys) as lab:
        cmd, three = lab.daemons.cmd, lab.daemons.maars[THREE]
        lab.topology.plug(ONE)
        arrive(lab, ONE, 0)
        lab.topology.move(TWO)
        arrive(lab, TWO, 1)
        captured = signalling(lab)
        assert all(locate(packet.payload) for packet in captured)
        assert any(is_registration(lab, packet) for packet in captured)
        assert refused_by(cmd) == {}

        # What registered the node with MAAR1 is sent again: now, and to a CMD that has forgotten all but its database.
        settle(lab)
        before = known(lab)
        replay_to_the_cmd(lab, captured)
        cmd.kill()
        cmd.start()
        cmd.wait_until_ready()
        wait_for_the_cmd(lab)
        replay_to_the_cmd(lab, captured)
        assert known(lab) == before

        # A MAAR with a wrong key gets no node.
        lab.topology.move(THREE)
        netns.wait_for(
            lambda: (
                refused_by(cmd).get("auth-forged", 0) >= 2 and refused(three).get("auth.forged", 0)
            ),
            timeout=30,
            what="both to refuse",
        )
        assert known(lab) == before
        mend(three)
        three.wait_until_ready()
        lab.topology.move(
            THREE
        )  # it knows of no node that it did not register: this one has to show itself
        arrive(lab, THREE, 2)
        settle(lab)
        assert cmd.command("db", "check") == "sound\n"


def is_registration(lab: Lab, packet: Packet) -> bool:
    (message,) = messages.read([packet], Names())
    is_update = isinstance(message.mobility, BindingUpdate)
    return is_update and message.receiver == CMD_NAME


def settle(lab: Lab) -> None:
    """Until all MAARs have acknowledged."""
    what = "all MAARs to acknowledge"
    netns.wait_for(
        lambda: lab.daemons.cmd.query("SELECT * FROM signals") == [], timeout=20, what=what
    )
