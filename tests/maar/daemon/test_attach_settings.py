"""First frames at daemons with settings of their own: limits, and hosts without DHCPv6."""

from __future__ import annotations

import random

import pytest

from dmm_wire import dmm
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.message import unwrap
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.running import Running, resident
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_attach import ADVERTISEMENT, local, served, told

pytestmark = pytest.mark.root


def test_made_up_addresses_cost_a_bounded_number_of_questions(place: Site, own: Running) -> None:
    own.config.write_text(own.config.read_text() + "\n[attach]\nrate = 5\nburst = 20\n")
    in_its_domain(place, own)
    host = place.speaker()
    noise = random.Random(2)
    memory = resident(own.pid)
    for _ in range(20_000):
        host.mac = b"\2" + noise.randbytes(5)
        host.report()
        host.say(served(host).address, parse_address("2001:db8:c::2"))
    own.counts("seen.mld", 2_000)
    status = own.status()["counters"]
    assert status["attach.limited"] > 1_000
    assert status["attach.asked"] < 200
    assert resident(own.pid) - memory < 30 << 20
    # Who is there all the same is served, by DHCPv6 at the latest.
    node = place.node("h1")
    place.exchange(
        node, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(node.prefix(), 1, 60)
    )
    assert own.session(node) is not None


def test_a_host_that_makes_its_own_address_is_told_its_prefix(place: Site, own: Running) -> None:
    own.config.write_text(own.config.read_text() + "slaac = true\n")  # of access1
    in_its_domain(place, own)
    host = place.speaker("h1")
    host.report()
    query = place.cmd.take_arrival(host.mac).data
    claim = next(
        each
        for each in dmm.from_options(dmm.DEFAULT_ENTERPRISE, unwrap(query).relays[0].options) or ()
        if isinstance(each, dmm.Maar)
    )
    assert claim.capabilities & dmm.CAP_SLAAC
    host.take_message(ADVERTISEMENT)  # to its first frame, and sent after the question
    place.cmd.answer_arrival(query, *told(host, place.generation()))
    advertisement = host.take_message(ADVERTISEMENT)[54:]
    assert advertisement[5] == 0x80  # M too: who has a client may use it
    for prefix, preferred in ((local(host), True), (served(host), False)):
        option = advertisement[advertisement.index(prefix.address) - 16 :]
        assert option[:4] == bytes((3, 4, 64, 0x40))
        assert (int.from_bytes(option[8:12], "big") > 0) is preferred
