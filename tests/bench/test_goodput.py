"""What plain forwarding is compared with: the same hops, and no tunnel on any of them."""

from __future__ import annotations

import os
import time

import pytest

from bench import goodput
from bench.attach_domain import AttachDomain
from dmm_wire.address import format_address
from lab import netns
from lab.capture import Capture
from lab.packets import ECHO_REPLY, ECHO_REQUEST
from lab.topology import CN1

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("setpriv", "ping")]

PREFIX = f"benchg{os.getpid()}"


def test_plain_forwarding_takes_the_same_hops() -> None:
    with AttachDomain(PREFIX, nodes=1) as lab, Capture(lab.topology) as capture:
        address = format_address(lab.leave().addresses[lab.home])

        def hops() -> list[tuple[str, str, int | None, bool]]:
            """Where an echo request and its reply were, and whether in a tunnel."""
            began = time.time_ns()
            ping = ["ping", "-6", "-c", "1", "-I", CN1.address, address]
            netns.run_in(lab.topology.namespace(CN1.node), *ping)
            return [
                (packet.link, packet.sender, packet.icmp_type, packet.tunnel is not None)
                for packet in capture.packets(began)
                if packet.icmp_type in (ECHO_REQUEST, ECHO_REPLY)
            ]

        with goodput.plain(lab, address):
            plain = hops()
        tunnelled = hops()
    assert [hop[:3] for hop in plain] == [hop[:3] for hop in tunnelled]
    assert len(plain) == 10
    assert not any(hop[3] for hop in plain)
    between = {("m1", "m1", ECHO_REQUEST), ("m2", "m2", ECHO_REPLY)}
    assert {hop[:3] for hop in tunnelled if hop[3]} >= between
    assert not [name for name in netns.names() if name.startswith(PREFIX)]
