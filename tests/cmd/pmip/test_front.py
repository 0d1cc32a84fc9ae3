"""The CMD's front end: what goes out where the database is away, or where there is more to say than a PBA can hold."""

from __future__ import annotations

import pytest

from dhcp_cmd.core.model import Decision, Registered
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.pmip.front import MOST_NAMED, Asked, acknowledgement
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import DlifLinkLayer, DlifLinkLocal, Status
from dmm_wire.router_identity import ETHERNET, of_anchor
from tests.cmd.core.registering import Maars
from tests.cmd.core.world import ENTERPRISE, World

ANCHOR = parse_address("2001:db8:ffff::7")


@pytest.fixture
def maars() -> Maars:
    return Maars(World(mode=SignallingMode.PROXY))


def test_where_the_database_is_away_nothing_is_said(maars: Maars) -> None:
    def away() -> None:
        raise StoreError("disk full")

    maars.world.store.before_commit = away
    update = maars.update(maars.options())
    source = maars.world.domain.maars[1].endpoint
    assert maars.send(source, update) is None
    assert maars.outcomes == {"store-error": 1}
    maars.world.store.before_commit = None
    assert isinstance(maars.send(source, update), bytes)
    assert maars.outcomes == {"store-error": 1, "pbu-registered": 1}


def decided(anchored: int) -> Decision:
    """One prefix here, and so many delegated ones elsewhere; all the identifiers that there may be."""
    local = Prefix.parse("2001:db8:1::/64")
    away = [Prefix.of(parse_address(f"2001:db8:7:{n:x}00::"), 56) for n in range(anchored)]
    relay: tuple[dmm.SubOption, ...] = (
        dmm.Visit(7, ANCHOR),
        dmm.AnchoredPrefix(local, 1800, 3600),
        *(dmm.PreviousMaar(each, 0, 600, True, ANCHOR) for each in away),
        dmm.Signalling(3),
    )
    return Decision(None, 0, relay, (), "pbu-registered", None, Registered(Status.ACCEPTED))


@pytest.mark.parametrize(
    ("anchored", "named", "lifetimes"),
    [(8, 8, True), (24, 24, False), (128, MOST_NAMED - 1, False)],
)
def test_what_does_not_fit_is_left_out(
    maars: Maars, anchored: int, named: int, lifetimes: bool
) -> None:
    update = maars.update(maars.options())
    octets = maars.front.encoded(Asked(ANCHOR, update), decided(anchored))
    assert octets is not None
    answer = maars.read(ANCHOR, octets, update)
    assert len(answer.local) == 1
    assert len(answer.previous) == named
    (local,) = answer.told(dmm.AnchoredPrefix)
    assert local.valid == (3600 if lifetimes else 600)
    assert answer.told(dmm.Signalling) == [dmm.Signalling(3)]


def test_as_which_router_an_anchor_is_shown_goes_before_a_prefix_does(maars: Maars) -> None:
    def shown(number: int) -> dmm.PreviousMaar:
        prefix = Prefix.of(parse_address(f"2001:db8:7:{number:x}00::"), 56)
        anchor = parse_address(f"2001:db8:ffff::{number:x}")
        link_local, link_layer = of_anchor(anchor)
        mac = (ETHERNET, link_layer)
        return dmm.PreviousMaar(prefix, 0, 600, True, anchor, link_local, mac)

    update = maars.update(maars.options())
    for count, with_routers in ((4, 4), (16, 16), (24, 0)):
        relay = (*decided(0).relay, *map(shown, range(1, count + 1)))
        octets = maars.front.encoded(Asked(ANCHOR, update), decided(0)._replace(relay=relay))
        assert octets is not None
        answer = maars.read(ANCHOR, octets, update)
        assert len(answer.previous) == count
        assert len(answer.all(DlifLinkLocal)) == len(answer.all(DlifLinkLayer)) == with_routers


def test_who_wants_no_answer_gets_none(maars: Maars) -> None:
    update = maars.update(maars.options())
    assert acknowledgement(update, decided(1), ENTERPRISE) is not None
    silent = Decision(None, None, (), (), "pbu-ignored")
    assert acknowledgement(update, silent, ENTERPRISE) is None
