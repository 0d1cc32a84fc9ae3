"""A running daemon notices a node by its first frame, and has all ready before the node asks for anything."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address
from tests.maar.daemon.actors import PEER, ROUTER_MAC, Speaker, attachment_of
from tests.maar.daemon.monitor import Event
from tests.maar.daemon.running import Running
from tests.maar.daemon.site import Site

pytestmark = pytest.mark.root

ADVERTISEMENT, SOLICITATION = 134, 135


def local(host: Speaker) -> Prefix:
    return Prefix.parse(f"2001:db8:1:1{host.mac[-1]:02x}::/64")


def served(host: Speaker, maar: int = 2) -> Prefix:
    return Prefix.parse(f"2001:db8:{maar:x}:1{host.mac[-1]:02x}::/64")


def told(host: Speaker, generation: int) -> tuple[dmm.SubOption, ...]:
    """What the CMD answers: it came from PEER."""
    return (
        dmm.Status(0),
        dmm.MobileNode(host.duid),
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(local(host), 1800, 3600),
        dmm.PreviousMaar(served(host), 0, 3000, False, PEER),
    )


def test_an_mld_report_is_enough(place: Site, maar: Running) -> None:
    host = place.speaker()
    host.report()
    # The router first: that waits for nobody.
    advertisement = host.take_message(ADVERTISEMENT)
    assert advertisement[6:12] == ROUTER_MAC
    assert advertisement[38:54] == host.link_local
    query = place.cmd.take_arrival(host.mac).data
    attached = attachment_of(query)
    assert attached is not None
    assert (attached.handoff, attached.access_technology, attached.hardware_type) == (4, 4, 1)
    assert attached.age_ms < 1000
    monitor = place.monitor()
    place.cmd.answer_arrival(query, *told(host, place.generation()))
    update = place.peer.take(lambda each: host.duid.value in each.data).data
    assert served(host).address in update
    assert {
        Event("put", "route", str(local(host))),
        Event("put", "route", str(served(host))),
        Event("put", "rule", str(served(host))),
        Event("put", "neighbour", format_address(host.link_local)),
    } <= set(monitor.read())
    for prefix in (local(host), served(host)):
        (route,) = place.routes(prefix)
        assert route["gateway"] == format_address(host.link_local)
    # It is told its prefixes, none of which is on-link; there was no DHCPv6 in all this.
    advertisement = host.take_message(ADVERTISEMENT)
    assert local(host).address in advertisement
    assert not [each for each in place.cmd.arrived() if host.duid.value in each.data]
    # Later frames say nothing new.
    asked = maar.count("attach.asked")
    host.report()
    host.advertise(host.link_local)
    maar.counts("seen.na")
    assert maar.count("attach.asked") == asked
