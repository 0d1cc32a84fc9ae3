"""Others change the kernel under a running daemon: an interface goes down or away, a route is deleted."""

from __future__ import annotations

from typing import Any

import pytest

from dmm_wire import dmm
from dmm_wire.address import format_address
from lab import netns
from tests.maar.daemon.actors import PATIENCE, PEER, Node
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.running import Running
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]


def visited(place: Site, node: Node) -> None:
    """Give a node its prefix of the MAAR under test."""
    place.exchange(
        node, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(node.prefix(), 900, 999)
    )


def held(place: Site) -> dict[str, Any]:
    """What the daemon holds in the kernel, in a form that compares."""

    def ours(view: str) -> list[Any]:
        found = netns.ip_json(*view.split(), namespace=place.maar)
        return sorted(found, key=repr)

    return {
        "routes": ours("-d -6 route show table all proto 213"),
        "rules": ours("-d -6 rule show"),
        "neighbours": ours("-6 neigh show nud permanent"),
    }


def mended(place: Site, before: dict[str, Any]) -> None:
    """Wait until the kernel holds what it held before."""
    netns.wait_for(
        lambda: held(place) == before, timeout=PATIENCE, what=f"{before}, not {held(place)}"
    )


def core_down_and_up(place: Site) -> None:
    """Down takes the addresses and the default route with it; whoever configured them brings them back."""
    netns.batch(
        (
            "link set core0 down",
            "link set core0 up",
            "addr add fe80::c:1/64 dev core0 nodad",
            "addr add 2001:db8:c::1/64 dev core0 nodad",
            "route add default via 2001:db8:c::2",
        ),
        namespace=place.maar,
    )


def test_what_a_core_interface_that_was_down_took_is_put_back(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    here, away = place.node(), place.node()
    place.exchange(
        here,
        dmm.Visit(place.generation(), PEER),
        dmm.AnchoredPrefix(here.prefix(1), 1800, 3600),
        dmm.PreviousMaar(here.prefix(2), 0, 3000, False, PEER),
    )
    place.peer.send(update(away, 1, place.generation(), away.prefix(1)))
    assert place.peer.take_answer(1).accepted
    before = held(place)
    core_down_and_up(place)
    mended(place, before)
    # Once more: the first time left the daemon as able as it was.
    core_down_and_up(place)
    mended(place, before)


def test_a_route_or_rule_that_somebody_deletes_is_put_back(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    here = place.node()
    place.exchange(
        here,
        dmm.Visit(place.generation(), PEER),
        dmm.AnchoredPrefix(here.prefix(1), 1800, 3600),
        dmm.PreviousMaar(here.prefix(2), 0, 3000, False, PEER),
    )
    before = held(place)
    for command in (
        f"-6 route del {here.prefix(1)} proto 213",
        "-6 route flush table 21300",
        "-6 route flush table 21301",
        f"-6 route del default from {here.prefix(2)} table 21302 metric 128",
        f"-6 route del unreachable default from {here.prefix(2)} table 21302 metric 4294967295",
        "-6 route flush table 21302",
        "-6 rule del priority 21305",
        "-6 rule del priority 21303",
        "-6 route flush proto 213",
    ):
        netns.ip(*command.split(), namespace=place.maar)
        mended(place, before)


def test_a_core_interface_that_is_made_anew_is_used_again(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    before = len(held(place)["routes"])
    netns.ip("link", "del", "core0", namespace=place.maar)
    place.cable("core0", "c0", place.core)
    netns.batch(
        (
            "addr add fe80::c:2/64 dev c0 nodad",
            "addr add 2001:db8:c::2/64 dev c0 nodad",
            "addr add 2001:db8:c::547/64 dev c0 nodad",
            "route add 2001:db8:f1::/48 via 2001:db8:c::1",
            "route add 2001:db8:1::/48 via 2001:db8:c::1",
        ),
        namespace=place.core,
    )
    netns.batch(
        (
            "addr add fe80::c:1/64 dev core0 nodad",
            "addr add 2001:db8:c::1/64 dev core0 nodad",
            "route add default via 2001:db8:c::2",
        ),
        namespace=place.maar,
    )
    own.counts("core.back")
    netns.wait_for(
        lambda: len(held(place)["routes"]) == before, timeout=PATIENCE, what="all routes"
    )
    visited(place, place.node())
    away = place.node()
    place.peer.send(update(away, 1, place.generation(), away.prefix(1)))
    assert place.peer.take_answer(1).accepted


def test_an_access_interface_that_comes_back_is_served_again(place: Site, own: Running) -> None:
    place.cable("access9", "h9", place.hosts)
    own.config.write_text(own.config.read_text().replace("access1", "access9"))
    in_its_domain(place, own)
    visited(place, place.node("h9"))
    assert own.status()["links"] == {"access0": "up", "access9": "up", "core0": "up"}

    netns.ip("link", "del", "access9", namespace=place.maar)
    own.counts("access.lost")
    assert own.status()["links"] == {"access0": "up", "access9": "gone", "core0": "up"}
    assert "access link access9 is gone" in own.log.read_text()
    assert "access9 gone" in own.command("status").stdout
    visited(place, place.node())

    place.cable("access9", "h9", place.hosts)
    own.counts("access.back")
    assert "access link access9 is back" in own.log.read_text()
    visited(place, place.node("h9"))
    netns.ip("link", "set", "h9", "down", namespace=place.hosts)
    netns.wait_for(
        lambda: own.status()["links"]["access9"] == "down", timeout=PATIENCE, what="link down"
    )
    assert (own.count("access.lost"), own.count("access.back")) == (1, 1)
    before = {rule["priority"]: rule for rule in place.rules() if "[detached]" in str(rule)}
    assert not before, "a rule of the interface that went is left"
    netns.ip("link", "del", "access9", namespace=place.maar)


def test_a_router_identity_that_somebody_removes_is_made_anew(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node = place.node()
    visited(place, node)
    before = netns.ip_json("link", "show", "type", "macvlan", namespace=place.maar)
    (device,) = [each["ifname"] for each in before if each["link"] == "access0"]
    netns.ip("link", "del", device, namespace=place.maar)
    own.counts("access.back")
    assert own.count("access.lost") == 1
    netns.wait_for(
        lambda: format_address(node.link_local) in place.neighbours(),
        timeout=PATIENCE,
        what="the node's neighbour",
    )
    visited(place, node)
    visited(place, place.node())


def test_what_reaches_nobody_for_want_of_a_link_is_counted(place: Site, own: Running) -> None:
    place.cable("access9", "h9", place.hosts)
    own.config.write_text(own.config.read_text().replace("access1", "access9"))
    in_its_domain(place, own)
    node = place.node("h9")
    node.send(node.message())
    forward = place.cmd.take_from(node).data
    netns.ip("link", "del", "access9", namespace=place.maar)
    own.counts("access.lost")
    place.cmd.reply(forward, node.reply())
    own.counts("send-client-ENODEV")
