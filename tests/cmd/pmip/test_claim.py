"""One process speaks PMIPv6 at an address: `dhcp-cmd serve`, or `dhcp-cmd signal`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dhcp_cmd.pmip.sockets import Claim, MobilitySocket
from dmm_wire.address import parse_address

HERE, THERE = parse_address("2001:db8:ffff::c1a1"), parse_address("2001:db8:ffff::c1a2")

HOLDER = f"""
import sys
from dhcp_cmd.pmip.sockets import Claim
claim = Claim({HERE!r})
print("mine", flush=True)
sys.stdin.read()
"""


def test_one_at_a_time() -> None:
    first = Claim(HERE)
    with pytest.raises(OSError, match="dhcp-cmd serve or signal speaks PMIPv6 there"):
        Claim(HERE)
    Claim(THERE).close()
    first.close()
    Claim(HERE).close()


def test_it_dies_with_its_process() -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with pytest.raises(OSError, match="speaks PMIPv6 there"):
            Claim(HERE)
        holder.kill()
        holder.wait()
        Claim(HERE).close()


@pytest.mark.root
def test_a_second_socket_is_refused_and_a_failed_one_claims_nothing() -> None:
    loopback = parse_address("::1")
    first = MobilitySocket(loopback)
    with pytest.raises(OSError, match="speaks PMIPv6 there"):
        MobilitySocket(loopback)
    first.close()
    MobilitySocket(loopback).close()
    for _ in range(2):
        with pytest.raises(OSError, match="assign"):  # nobody has this address here
            MobilitySocket(HERE)
