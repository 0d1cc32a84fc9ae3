"""The `ip xfrm` lines of docs/security.md, on two MAARs of the lab or on a MAAR and the CMD: signalling goes on in
ESP, nothing in the clear.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dmm_wire.address import format_address, parse_address
from lab import netns
from lab.checks import Checks
from lab.daemons import Maar
from lab.flows import ROOT
from lab.lab import Lab
from lab.packets import MOBILITY
from lab.scenario import MainJob
from lab.topology import CMD, MAAR_PLANS
from tests.conftest import NOT_RUN

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "nft", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"labx{os.getpid()}"
ONE, TWO, _ = MAAR_PLANS
ESP = 50
PAGE = ROOT / "docs" / "security.md"


SHOWN = "2001:db8:0:1::53"
"""The CMD's address on the page."""


@dataclass(frozen=True)
class Other:
    """Who is at the other end of what MAAR1 says: MAAR2, or the CMD."""

    node: str
    address: bytes
    shown: str
    """Its address on the page."""

    def lines(self, what: str) -> list[list[str]]:
        """The commands `ip xfrm WHAT add` of the page for protocol 135 between the two."""
        text = PAGE.read_text().partition("## IPsec by IKEv2")[0]
        found = [
            line.replace(SHOWN, CMD.address)
            for line in re.findall(rf"^ip (xfrm {what} add .*)$", text, flags=re.MULTILINE)
            if f"{self.shown}/" in line or f"{self.shown} " in line
        ]
        assert len(found) == 2
        return [shlex.split(line) for line in found]


MAAR2 = Other(TWO.node, TWO.endpoint, format_address(TWO.endpoint))
THE_CMD = Other(CMD.node, CMD.packed, SHOWN)


def exchanged(words: list[str]) -> list[str]:
    """A line for the other end."""
    other = {"in": "out", "out": "in"}
    return [other.get(word, word) for word in words]


def set_policies(lab: Lab, other: Other = MAAR2) -> None:
    for words in other.lines("policy"):
        netns.ip(*words, namespace=lab.topology.namespace(ONE.node))
        netns.ip(*exchanged(words), namespace=lab.topology.namespace(other.node))


def set_states(lab: Lab, other: Other) -> None:
    for node in (ONE.node, other.node):
        for words in other.lines("state"):
            try:
                netns.ip(*words, namespace=lab.topology.namespace(node))
            except netns.LabError as problem:
                if not re.search("not supported|type not found", str(problem)):
                    raise
                pytest.skip(f"{NOT_RUN}needs ESP for IPv6 in the kernel (CONFIG_INET6_ESP)")


def between(lab: Lab, protocol: int, other: Other = MAAR2) -> int:
    """How many packets of a protocol the core carried between the two."""
    pair = {ONE.endpoint, other.address}
    return sum(
        packet.protocol == protocol and {packet.source, packet.destination} == pair
        for packet in lab.capture.packets()
    )


def count(maar: Maar, counter: str) -> int:
    return int(maar.status()["counters"].get(counter, 0))


@pytest.fixture
def job() -> Iterator[MainJob]:
    """The node is at MAAR1."""
    with Lab(PREFIX) as lab, MainJob(lab, Checks(), counts_messages=False) as job:
        job.attach(ONE, "attach")
        yield job


def test_the_page_is_about_the_labs_endpoints() -> None:
    for other in (MAAR2, THE_CMD):
        for words in other.lines("state") + other.lines("policy"):
            named = {parse_address(word.partition("/")[0]) for word in words if word.count(":") > 2}
            assert named == {ONE.endpoint, other.address}, list(map(format_address, named))


def test_with_the_policies_nothing_passes_in_the_clear(job: MainJob) -> None:
    lab = job.lab
    one, two = lab.daemons.maars[ONE], lab.daemons.maars[TWO]
    set_policies(lab)
    lab.topology.move(TWO)
    netns.wait_for(lambda: count(two, "pbu.sent") >= 2, timeout=30, what="PBUs to be sent")
    assert between(lab, MOBILITY) == 0

    # One end alone: what the other one sends in the clear is not heard.
    netns.ip("xfrm", "policy", "flush", namespace=lab.topology.namespace(TWO.node))
    netns.wait_for(lambda: between(lab, MOBILITY) >= 1, timeout=40, what="a PBU in the clear")
    sent = count(two, "pbu.sent")
    netns.wait_for(lambda: count(two, "pbu.sent") > sent, timeout=40, what="one more")
    assert count(one, "pbu.accepted") == 0
    netns.ip("xfrm", "policy", "flush", namespace=lab.topology.namespace(ONE.node))
    netns.wait_for(lambda: count(two, "pba.accepted") >= 1, timeout=60, what="the PBA")


def test_signalling_in_esp(job: MainJob) -> None:
    lab = job.lab
    set_states(lab, MAAR2)
    set_policies(lab)
    job.move(TWO, "to MAAR2")
    job.move(ONE, "and back")
    assert between(lab, MOBILITY) == 0
    assert between(lab, ESP) >= 2
    assert count(lab.daemons.maars[TWO], "pba.accepted") >= 1
    job.finish()
    assert not job.checks.failed, [(each.what, each.found) for each in job.checks.failed]


@pytest.fixture
def signalled() -> Iterator[MainJob]:
    """The node is at MAAR1, and the CMD is going to tell that MAAR where it goes."""
    with (
        Lab(PREFIX, mode="proxy", stock=False) as lab,
        MainJob(lab, Checks(), counts_messages=False) as job,
    ):
        job.attach(ONE, "attach")
        yield job


def test_nor_does_anything_between_cmd_and_maar(signalled: MainJob) -> None:
    lab = signalled.lab
    cmd = lab.daemons.cmd
    set_policies(lab, THE_CMD)
    lab.topology.move(TWO)

    def tried() -> bool:
        found = cmd.counters()
        return found.get("pbu-sent", 0) + found.get("pbu-sent-error", 0) >= 2

    netns.wait_for(tried, timeout=30, what="PBUs to be sent")
    assert between(lab, MOBILITY, THE_CMD) == 0
    for node in (ONE.node, CMD.node):
        netns.ip("xfrm", "policy", "flush", namespace=lab.topology.namespace(node))
    netns.wait_for(lambda: cmd.counters().get("pba-accepted", 0) >= 1, timeout=60, what="the PBA")


def test_cmd_and_maar_in_esp(signalled: MainJob) -> None:
    lab = signalled.lab
    set_states(lab, THE_CMD)
    set_policies(lab, THE_CMD)
    signalled.move(TWO, "to MAAR2")
    signalled.move(ONE, "and back")
    assert between(lab, MOBILITY, THE_CMD) == 0
    assert between(lab, ESP, THE_CMD) >= 2
    signalled.finish()
    assert not signalled.checks.failed, [(c.what, c.found) for c in signalled.checks.failed]
