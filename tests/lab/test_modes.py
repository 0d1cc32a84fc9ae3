"""The main job in each mode of RFC 8885 in which the CMD signals: the same for the node, and the ladder of the RFC's
figure; and what a CMD that dies leaves to be sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from dmm_wire import dmm
from dmm_wire.mobility import BindingUpdate
from lab import expect, messages, netns, trail
from lab.checks import Checks
from lab.lab import Lab
from lab.messages import Message
from lab.names import CMD_NAME, Names
from lab.scenario import MainJob, Step
from lab.topology import MAAR_PLANS

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "nft", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"labm{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS

CASES = [("proxy", True), ("proxy", False), ("locator", True), ("locator", False), ("relay", False)]
"""Each mode, and whether on ipv6-dhcpd (with `dhcp-cmd signal`) or on `dhcp-cmd serve`."""


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'stock' if case[1] else 'serve'}")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, stock = request.param
    with Lab(PREFIX, mode=mode, stock=stock) as lab:
        yield lab


def conclude(lab: Lab, job: MainJob, checks: Checks) -> None:
    """End the flows, look into the database, stop the MAARs; then everything must have held."""
    job.finish()
    trail.history(job, lab.daemons.cmd)
    checks.equal("nothing is owed any more", lab.daemons.cmd.query("SELECT * FROM signals"), [])
    checks.equal("the database is sound", lab.daemons.cmd.command("db", "check"), "sound\n")
    for maar in lab.daemons.maars.values():
        checks.equal(f"{maar.name} stops", maar.stop(), 0)
    expect.kernels_are_clean(job)
    assert not checks.failed, "\n".join(
        [f"{check.what}: {check.found}" for check in checks.failed] + [lab.daemons.tails()]
    )


def ladder(step: Step) -> list[tuple[str, str, str]]:
    """What CMD and MAARs said to each other about the move: name, sender, receiver; without the domain's refresh. The
    move begins with the question about the first frame."""
    about_the_node = (dmm.Attachment, dmm.Visit)
    return [
        (m.name, m.sender, m.receiver)
        for m in step.messages
        if m.mobility is not None or any(isinstance(s, about_the_node) for s in m.suboptions)
    ]


def place(said: list[tuple[str, str, str]], wanted: tuple[str, str, str]) -> int:
    # Once, and once more at most when DHCPv6 grants longer lifetimes.
    assert said.count(wanted) in (1, 2), (wanted, said)
    return said.index(wanted)


def check_ladder(mode: str, step: Step, anchors: list[str]) -> None:
    """The figure of the mode (RFC 8885 sections 3.2 to 3.4), with one P-MAAR or more."""
    said, serving = ladder(step), step.plan.name.upper()
    asked = said.index(("Relay-forward", serving, CMD_NAME))
    told = said.index(("Relay-reply", CMD_NAME, serving))
    assert asked < told
    for anchor in anchors:
        update = place(said, ("PBU", CMD_NAME, anchor))
        answer = place(said, ("PBA", anchor, CMD_NAME))
        assert asked < update < answer
        if mode == "relay":
            assert answer < told
        elif mode == "locator":
            # To both at once.
            assert update < place(said, ("PBA", anchor, serving))
        else:
            assert told < answer
    count = 3 if mode == "locator" else 2
    assert len({each for each in said if each[0] in ("PBU", "PBA")}) == count * len(anchors)


def test_the_main_job(lab: Lab) -> None:
    checks = Checks()
    with MainJob(lab, checks) as job:
        job.run()
        assert job.client_still_runs
        conclude(lab, job, checks)
    for step, anchors in zip(
        job.steps, ([], ["MAAR1"], ["MAAR1", "MAAR2"], ["MAAR2", "MAAR3"]), strict=True
    ):
        check_ladder(lab.mode, step, anchors)


def mute(lab: Lab) -> Callable[[], None]:
    """Nothing that the CMD sends by PMIPv6 leaves it, until the function returned is called."""
    rule = "ipproto 135 pref 5 prohibit"
    netns.ip("-6", "rule", "add", *rule.split(), namespace=lab.topology.namespace("cmd"))

    def undo() -> None:
        netns.ip("-6", "rule", "del", *rule.split(), namespace=lab.topology.namespace("cmd"))

    return undo


def test_killed_between_the_commit_and_the_pbu(lab: Lab) -> None:
    """What was committed and never sent goes out after the restart, once for each anchor that is owed it."""
    checks = Checks()
    cmd, sender = lab.daemons.cmd, lab.daemons.signaller or lab.daemons.cmd
    restarted = 0

    def kill_and_restart(_: Step) -> None:
        nonlocal restarted
        what = "the signal to be committed"
        netns.wait_for(lambda: cmd.query("SELECT * FROM signals"), timeout=20, what=what)
        sender.kill()
        speak()
        restarted = time.time_ns()
        sender.start()

    with MainJob(lab, checks, counts_messages=False) as job:
        job.attach(ONE, "attach")
        speak = mute(lab)
        step = job.move(TWO, "the CMD dies", kill_and_restart)
        sent = [m for m in step.messages if is_update(m)]
        assert {(m.sender, m.receiver) for m in sent} == {(CMD_NAME, "MAAR1")}
        assert all(m.at > restarted for m in sent)
        job.move(ONE, "back")
        conclude(lab, job, checks)


def is_update(message: Message) -> bool:
    return isinstance(message.mobility, BindingUpdate)


def test_an_anchor_that_is_not_there_is_told_when_it_is_back(lab: Lab) -> None:
    """MAAR1 is down while the node moves: its prefixes go on when it is back, whoever was to tell whom."""
    checks = Checks()

    def start_later(step: Step) -> None:
        def was_told() -> bool:
            found = messages.read(lab.capture.packets(step.plugged), Names())
            return len([m for m in found if is_update(m)]) >= 2

        netns.wait_for(was_told, timeout=20, what="a PBU to be sent again", interval=0.05)
        lab.daemons.maars[ONE].start()

    with MainJob(lab, checks, counts_messages=False) as job:
        job.attach(ONE, "attach")
        lab.daemons.maars[ONE].kill()
        job.move(TWO, "while MAAR1 is down", start_later)
        job.move(THREE, "on")
        conclude(lab, job, checks)
