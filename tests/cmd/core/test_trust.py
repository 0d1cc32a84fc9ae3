"""Whom the CMD believes: MAARs, plain relays, hosts that forge; and who a node is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core.model import ConflictPolicy, EventType, Kind, Maar, State
from dhcp_cmd.service import Cmd
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.core.world import (
    Answer,
    Host,
    M,
    World,
    a_maar,
    address,
    attachment,
    dmm_status,
    link_address,
    na,
    pd,
    relayed,
    told,
    visit,
)

BAD = address("2001:db8::bad")
ONE = a_maar(1)


@pytest.mark.parametrize(
    ("maar", "source", "endpoint", "link", "outcome"),
    [
        (a_maar(9), a_maar(9).relay_address, None, None, "unknown-maar"),
        (ONE, BAD, None, None, "wrong-relay-address"),
        (ONE, ONE.relay_address, BAD, None, "endpoint-mismatch"),
        (ONE, ONE.relay_address, None, link_address(2), "wrong-link"),
    ],
)
def test_a_level_that_is_not_a_maars_gets_no_service(
    maar: Maar, source: bytes, endpoint: bytes | None, link: bytes | None, outcome: str
) -> None:
    world, host = World(), Host(1)
    inner = host.message(M.REQUEST, na())
    data = relayed(inner, maar, mac=host.mac, endpoint=endpoint, link=link)
    decision = world.handle(world.request(data, source))
    assert (decision.reply, decision.outcome) == (None, outcome)
    assert world.store.commits == 0
    assert world.cmd.outcomes[outcome] == 1


def test_a_maar_that_asks_for_itself_is_told_why_it_is_not_believed() -> None:
    world = World()
    assert dmm_status(world.query(9)) == 1
    assert dmm_status(world.query(1, source=address("2001:db8::bad"))) == 1
    assert dmm_status(world.query(1, link=link_address(2))) == 1
    mismatch = world.query(1, endpoint=address("2001:db8::bad"))
    assert dmm_status(mismatch) == 2
    assert told(mismatch, dmm.Domain) == []
    assert mismatch.reply is not None


def test_a_level_forged_by_a_host_is_never_looked_at() -> None:
    """A host wraps its message as if MAAR 2 had relayed it; the MAAR it is really at relays that."""
    world, host = World(), Host(1)
    forged = relayed(host.message(M.REQUEST, na()), world.domain.maars[2], mac=host.mac)
    real = world.domain.maars[1]
    data = relayed(forged, real, peer=host.link_local, mac=host.mac)
    decision = world.handle(world.request(data, real.relay_address))
    assert decision.level == 0
    assert world.node(host).serving == 1
    assert {b.anchor for b in world.rows()} == {1}


def test_a_level_forged_behind_a_plain_relay_needs_the_maars_address() -> None:
    world, host = World(), Host(1)
    forged = relayed(host.message(M.REQUEST, na()), world.domain.maars[2], mac=host.mac)
    outer = relayed(forged, world.domain.maars[1], peer=host.link_local, mobile=False)
    decision = world.handle(world.request(outer, address("2001:db8::5")))
    assert (decision.reply, decision.outcome) == (None, "unknown-relay")


def behind(inner: bytes, maar: Maar, link: bytes | None = bytes(16)) -> bytes:
    """What a relay says that this MAAR sent to it."""
    return relayed(inner, a_maar(8), peer=maar.relay_address, mobile=False, link=link)


def test_a_maar_may_be_behind_relays_that_the_operator_trusts() -> None:
    relays = (Prefix.parse("2001:db8::5/128"), Prefix.parse("2001:db8:5::/64"))
    world, host = World(trusted_relays=relays), Host(1)
    maar = world.domain.maars[1]
    inner = relayed(host.message(M.REQUEST, na()), maar, peer=host.link_local, mac=host.mac)
    decision = world.handle(world.request(behind(inner, maar), address("2001:db8::5")))
    assert (decision.level, decision.outcome) == (1, "reply")
    assert world.node(host).serving == 1
    middle = a_maar(7)
    middle = replace(middle, relay_address=address("2001:db8:5::7"))
    twice = behind(behind(inner, maar), middle)
    decision = world.handle(world.request(twice, address("2001:db8::5")))
    assert (decision.level, decision.outcome) == (2, "reply")
    # Each of them has to be.
    middle = replace(middle, relay_address=BAD)
    twice = behind(behind(inner, maar), middle)
    decision = world.handle(world.request(twice, address("2001:db8::5")))
    assert (decision.reply, decision.outcome) == (None, "unknown-relay")


@pytest.mark.parametrize("source", [BAD, a_maar(3).relay_address])
def test_nobody_says_for_a_maar_what_it_sent(source: bytes) -> None:
    """Neither a host of the network nor another MAAR's relay address: a MAAR has no MAAR behind it."""
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    two = world.domain.maars[2]
    for kind in (M.REBIND, M.RELEASE, M.INFORMATION_REQUEST):
        ias = () if kind == M.INFORMATION_REQUEST else (na(1, *held.na[1]), pd(1, *held.pd[1]))
        inner = relayed(host.message(kind, *ias, xid=b"bad"), two, mac=host.mac)
        for link in (bytes(16), link_address(2), link_address(3)):
            before = world.store.commits
            decision = world.handle(world.request(behind(inner, two, link), source))
            if link == link_address(3) and source != BAD:
                continue  # plain DHCPv6 for a client of its own link
            assert (decision.reply, decision.relay) == (None, ())
            assert (decision.outcome, world.store.commits) == ("unknown-relay", before)
    assert world.node(host).serving == 1
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ACTIVE}


def test_nobody_asks_for_a_maar_who_its_peers_are() -> None:
    world = World()
    two = world.domain.maars[2]
    query = ClientMessage(
        M.INFORMATION_REQUEST, b"bad", ((int(OptionCode.CLIENTID), two.relay_id),)
    )
    data = behind(relayed(query.encode(), two, peer=two.endpoint), two)
    decision = world.handle(world.request(data, BAD))
    assert (decision.reply, decision.relay, decision.outcome) == (None, (), "unknown-relay")


# --- coexistence ---


@pytest.mark.parametrize("source", [BAD, a_maar(2).relay_address])
@pytest.mark.parametrize("kind", [M.SOLICIT, M.REQUEST, M.RELEASE, M.DECLINE])
def test_a_plain_relay_is_registered_or_refused(source: bytes, kind: int) -> None:
    world, host = World(), Host(1)
    held = Answer(world.ask(host, 1, M.REQUEST, na(), pd(), mobile=False))
    rows = world.rows()
    inner = host.message(kind, na(1, *held.na[1]), pd(1, *held.pd[1]))
    decision = world.handle(world.request(relayed(inner, ONE, mobile=False), source))
    assert (decision.reply, decision.outcome) == (None, "unknown-relay")
    assert world.rows() == rows


def test_a_plain_relay_the_operator_trusts_serves_every_link() -> None:
    world, host = World(trusted_relays=(Prefix.parse("2001:db8::5/128"),)), Host(1)
    for number in (1, 2):
        inner = host.message(M.REQUEST, na())
        data = relayed(inner, a_maar(number), mac=host.mac, mobile=False)
        assert world.handle(world.request(data, address("2001:db8::5"))).outcome == "reply"
    assert {b.anchor for b in world.rows(host)} == {1, 2}
    nowhere = relayed(host.message(M.SOLICIT, na()), ONE, mobile=False, link=BAD)
    assert Answer(world.handle(world.request(nowhere, address("2001:db8::5")))).ia_status == {
        ("na", 1): StatusCode.NO_ADDRS_AVAIL
    }


def test_a_relay_without_an_address_on_the_link_leaves_it_to_the_next_one() -> None:
    """RFC 9915 section 13.1: an LDRA (RFC 6221) says `::`, and its own option 79 is anybody's."""
    world, host = World(), Host(1)
    ldra = relayed(
        host.message(M.REQUEST, na()), a_maar(7), mobile=False, link=bytes(16), mac=Host(5).mac
    )
    data = relayed(ldra, ONE, peer=address("fe80::7"), mobile=False)
    assert world.handle(world.request(data, ONE.relay_address)).outcome == "reply"
    assert {b.anchor for b in world.rows(host)} == {1}
    assert world.node(host).identities == (host.identity,)


@pytest.mark.parametrize("kind", [M.RELEASE, M.DECLINE])
def test_a_plain_relay_ends_nothing_of_a_node_that_is_at_a_maar(kind: int) -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    world.later(60).attached(host, 2)
    rows = world.rows()
    ias = na(1, *held.na[1]), pd(1, *held.pd[1])
    answer = Answer(world.ask(host, 1, kind, *ias, mobile=False))
    assert set(answer.ia_status.values()) == {StatusCode.NO_BINDING}
    assert world.rows() == rows


def test_a_plain_relay_gets_plain_dhcpv6() -> None:
    world, host = World(), Host(1)
    decision = world.ask(host, 1, M.SOLICIT, na(), pd(), mobile=False)
    assert (decision.level, decision.relay, decision.changes) == (None, (), ())
    decision = world.ask(host, 1, M.REQUEST, na(), pd(), mobile=False)
    answer = Answer(decision)
    assert (len(answer.na[1]), len(answer.pd[1])) == (1, 1)
    assert decision.relay == ()
    assert world.node(host).serving is None
    assert world.events("handover") == []
    released = world.ask(host, 1, M.RELEASE, pd(1, *answer.pd[1]), mobile=False)
    assert Answer(released).status == StatusCode.SUCCESS
    assert world.row(host, kind=Kind.DELEGATED).state is State.ENDED


def test_a_plain_relay_sees_the_leases_of_its_own_link_only() -> None:
    world, host = World(), Host(1)
    one = world.attached(host, 1)
    two = Answer(world.later(60).ask(host, 2, M.REBIND, na(), pd(), mobile=False))
    assert set(one.na[1]) & set(two.na[1]) == set()
    assert [len(two.na[1]), len(two.pd[1])] == [1, 1]
    assert world.node(host).serving == 1
    confirm = world.ask(host, 2, M.CONFIRM, na(1, *one.na[1]), mobile=False)
    assert Answer(confirm).status == StatusCode.NOT_ON_LINK
    # Back at a MAAR: what the plain link gave is anchored elsewhere.
    back = world.ask(host, 1, M.RENEW, na(), pd())
    assert {p.endpoint for p in told(back, dmm.PreviousMaar)} == {world.domain.maars[2].endpoint}


def test_a_deprecated_lease_is_preferred_again_on_its_own_plain_link() -> None:
    world, host = World(), Host(1)
    one = world.attached(host, 1)
    world.later(60).attached(host, 2)
    again = Answer(world.ask(host, 1, M.RENEW, na(), pd(), mobile=False))
    assert again.na[1] == dict.fromkeys(one.na[1], (1800, 3600))
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ACTIVE}
    assert world.node(host).serving == 2


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (M.SOLICIT, {StatusCode.NO_ADDRS_AVAIL, StatusCode.NO_PREFIX_AVAIL}),
        (M.REQUEST, {StatusCode.NO_ADDRS_AVAIL, StatusCode.NO_PREFIX_AVAIL}),
        (M.RENEW, {StatusCode.NO_BINDING}),
        (M.RELEASE, {StatusCode.NO_BINDING}),
        (M.DECLINE, {StatusCode.NO_BINDING}),
        (M.INFORMATION_REQUEST, set()),
        (M.CONFIRM, None),
        (M.REBIND, None),
    ],
)
def test_a_message_from_no_known_link(kind: int, statuses: set[int] | None) -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    commits = world.store.commits
    ias = () if kind == M.INFORMATION_REQUEST else (na(1), pd(1))
    decision = world.direct(host, kind, *ias)
    if statuses is None:
        assert decision.reply is None
    else:
        assert set(Answer(decision).ia_status.values()) == statuses
    assert (decision.level, decision.relay, world.store.commits) == (None, (), commits)


def test_a_client_on_the_link_of_the_server_itself() -> None:
    """It gets what that link has, as behind a relay without mobility: no visit, no handover."""
    world, host = World(), Host(1)
    decision = world.direct(host, M.REQUEST, na(), pd(), link=link_address(1))
    answer = Answer(decision)
    assert (decision.level, decision.relay) == (None, ())
    assert (len(answer.na[1]), len(answer.pd[1])) == (1, 1)
    assert {row.anchor for row in world.rows(host)} == {1}
    assert world.node(host).serving is None
    assert world.events("handover") == []
    # Elsewhere it is known, and the link's leases are not what it sees there.
    other = Answer(world.direct(host, M.RENEW, na(), link=link_address(2)))
    assert {row.anchor for row in world.rows(host, kind=Kind.ADDRESS)} == {1, 2}
    assert len(other.na[1]) == 1
    assert other.na[1].keys().isdisjoint(answer.na[1])
    unknown = world.direct(Host(2), M.REQUEST, na(), link=address("2001:db8:9999::1"))
    assert set(Answer(unknown).ia_status.values()) == {StatusCode.NO_ADDRS_AVAIL}


# --- identity ---


def copycat(host: Host, number: int) -> Host:
    """Another machine with this host's DUID."""
    other = Host(number)
    other.duid, other.identity = host.duid, host.identity
    return other


def test_a_copied_duid_moves_nothing() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    thief = copycat(host, 66)
    before = world.rows()
    for _ in range(3):
        denied = world.later(10).ask(thief, 2, M.REBIND, na(1, *held.na[1]), pd(1, *held.pd[1]))
        assert denied.outcome == "identity-conflict"
        assert Answer(denied).status == StatusCode.UNSPEC_FAIL
        assert (dmm_status(denied), len(denied.relay)) == (4, 1)
    assert world.rows() == before
    assert world.node(host).serving == 1
    (event,) = [
        e for e in world.store.history if e.type is EventType.CONFLICT
    ]  # not one per packet
    assert (event.node, event.from_maar, event.to_maar) == (world.node(host).id, 1, 2)
    assert str(thief.hardware) in (event.detail or "")


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (M.SOLICIT, M.ADVERTISE),
        (M.REQUEST, M.REPLY),
        (M.RENEW, M.REPLY),
        (M.RELEASE, M.REPLY),
        (M.DECLINE, M.REPLY),
        (M.INFORMATION_REQUEST, M.REPLY),
        (M.CONFIRM, None),
    ],
)
def test_what_a_denied_client_is_told(kind: int, reply: int | None) -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    ias = () if kind == M.INFORMATION_REQUEST else (na(1), pd(1))
    decision = world.ask(copycat(host, 66), 2, kind, *ias, rapid=kind == M.SOLICIT)
    assert (None if decision.reply is None else decision.reply.type) == reply
    if kind == M.SOLICIT:
        assert Answer(decision).ia_status == {
            ("na", 1): StatusCode.NO_ADDRS_AVAIL,
            ("pd", 1): StatusCode.NO_PREFIX_AVAIL,
        }
    assert decision.outcome == "identity-conflict"


def test_a_known_duid_with_the_link_layer_address_of_another_node_is_a_conflict() -> None:
    world, host, other = World(), Host(1), Host(2)
    world.attached(host, 1)
    world.later(4000).attached(other, 1)  # nothing of `host` is live any more
    thief = Host(1, mac=other.mac)
    assert world.ask(thief, 1, M.REQUEST, na()).outcome == "identity-conflict"
    query = world.query(1, dmm.MobileNode(host.identity), attachment(other))
    assert (dmm_status(query), query.outcome) == (4, "identity-conflict")


def test_another_system_on_the_same_interface_is_a_node_of_its_own() -> None:
    world, firmware = World(), Host(1)
    world.attached(firmware, 1)
    system = Host(2, mac=firmware.mac)
    assert world.later(5).ask(system, 1, M.REQUEST, na()).outcome == "reply"
    assert world.later(5).ask(system, 2, M.RENEW, na()).outcome == "reply"
    assert world.node(system).identities == (system.identity,)
    assert firmware.hardware in world.node(firmware).identities
    assert world.node(firmware).serving == 1
    assert world.node(system).serving == 2


def test_an_accepted_conflict_is_recorded_and_moves_the_node() -> None:
    world, host = World(conflict_policy=ConflictPolicy.ACCEPT), Host(1)
    world.attached(host, 1)
    again = copycat(host, 66)
    decision = world.later(10).ask(again, 2, M.REQUEST, na())
    assert (decision.outcome, dmm_status(decision)) == ("reply", 0)
    assert len(world.events("conflict")) == 1
    assert again.hardware in world.node(host).identities
    stranger = Host(3, mac=host.mac)
    assert world.ask(stranger, 1, M.REQUEST, na()).outcome == "reply"
    assert world.node(stranger).identities == (stranger.identity,)


def test_a_new_network_card_is_learned_once_nothing_is_live() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    renewed = copycat(host, 77)
    world.later(4000)
    assert world.ask(renewed, 2, M.REQUEST, na()).outcome == "reply"
    assert renewed.hardware in world.node(host).identities
    # From now on it is this one that speaks for the node, and the old one does not.
    assert world.later(10).ask(renewed, 1, M.RENEW, na()).outcome == "reply"
    assert world.later(10).ask(host, 2, M.RENEW, na()).outcome == "identity-conflict"


def test_a_mac_seen_with_another_duid_before_still_protects_its_node() -> None:
    """Who says it has the victim's link-layer address gets there first; that takes nothing from the victim."""
    world, victim = World(), Host(1)
    world.attached(Host(66, mac=victim.mac), 2, na())
    held = world.later(10).attached(victim, 1)
    assert world.node(victim).identities == (victim.identity,)
    thief = copycat(victim, 77)
    stolen = world.later(10).ask(thief, 2, M.REBIND, na(1, *held.na[1]))
    assert (stolen.outcome, dmm_status(stolen)) == ("identity-conflict", 4)
    assert thief.hardware not in world.store.tables.identities
    moved = world.later(10).ask(victim, 2, M.REBIND, na(1, *held.na[1]))
    assert (moved.outcome, world.node(victim).serving) == ("reply", 2)


def test_nobody_moves_a_live_node_without_a_link_layer_address() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    denied = world.later(10).ask(host, 2, M.REBIND, na(1, *held.na[1]), mac=False)
    assert denied.outcome == "identity-conflict"
    assert world.node(host).serving == 1
    assert world.ask(host, 1, M.RENEW, na(), mac=False).outcome == "reply"
    assert world.later(4000).ask(host, 2, M.REQUEST, na(), mac=False).outcome == "reply"


def test_conflicts_cost_one_row_in_a_minute_whoever_asks_whom() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    other_worker = Cmd(world.store, world.settings)
    for number in range(250):
        thief = Host(1, mac=b"\x02\x66\x66\x66" + number.to_bytes(2, "big"))
        packet = world.packet(thief, 2 + number % 2, M.REBIND, na())
        for cmd in (world.cmd, other_worker):
            (decision,) = cmd.handle([packet], lambda: world.now)
            assert decision.outcome == "identity-conflict"
    assert len(world.events("conflict")) == 1
    world.later(60).ask(copycat(host, 77), 2, M.REBIND, na())
    assert len(world.events("conflict")) == 2


def test_a_node_is_known_by_its_last_link_layer_addresses_only() -> None:
    world = World()
    hosts = [Host(1, mac=b"\x02\x00\x00\x00\x77" + bytes((n,))) for n in range(12)]
    for host in hosts:
        world.later(4000).attached(host, 1, na())
    assert set(world.node(hosts[0]).identities) == {
        hosts[0].identity,
        *(host.hardware for host in hosts[-8:]),
    }
    assert len(world.store.tables.identities) == 9
    # What it was known by is anybody's again.
    stranger = Host(2, mac=hosts[0].mac)
    world.attached(stranger, 1)
    assert world.node(stranger).identities == (stranger.identity, stranger.hardware)


def test_a_node_without_link_layer_addresses_is_known_by_its_duid() -> None:
    world, host = World(), Host(1)
    world.ask(host, 1, M.REQUEST, na(), mac=False)
    world.later(5).ask(host, 2, M.REQUEST, na(), mac=False)
    assert world.node(host).identities == (host.identity,)
    world.later(5).ask(host, 2, M.REQUEST, na())
    assert world.node(host).identities == (host.identity, host.hardware)


def test_a_node_known_by_its_link_layer_address_alone_is_merged() -> None:
    world, host = World(), Host(1)
    held = Answer(world.ask(host, 1, M.REQUEST, na(), mac=False))
    seen = world.later(10).query(2, attachment(host), slaac=True)  # no DUID: a second node
    assert len(world.store.tables.nodes) == 2
    decision = world.later(1).ask(host, 2, M.REBIND, na(1, *held.na[1]))
    assert len(world.store.tables.nodes) == 1
    assert visit(decision).generation > visit(seen).generation
    assert set(world.node(host).identities) == {host.identity, host.hardware}
    link = world.row(host, kind=Kind.LINK, anchor=2)
    assert [link.prefix] == [a.prefix for a in told(seen, dmm.AnchoredPrefix)]
    assert ("reclaimed", "merge") in world.events()
    assert {b.node for b in world.rows()} == {world.node(host).id}


def test_a_merge_leaves_one_link_prefix_for_each_maar() -> None:
    world, host = World(), Host(1)
    world.ask(host, 1, M.REQUEST, na(), mac=False)
    seen = world.later(10).query(1, attachment(host), slaac=True)
    assert len(world.rows(kind=Kind.LINK, anchor=1)) == 2
    merged = world.later(1).ask(host, 1, M.RENEW, na())
    assert visit(merged).generation == visit(seen).generation  # never behind what the MAAR was told
    assert len([b for b in world.live(host) if b.kind is Kind.LINK]) == 1


def test_flapping_is_a_conflict_and_passes() -> None:
    world, host = World(flap_interval=2, flap_limit=3), Host(1)
    world.attached(host, 1)
    world.later(60).ask(host, 2, M.SOLICIT)
    outcomes = [world.later(0.5).ask(host, n, M.SOLICIT).outcome for n in (1, 2, 1, 2, 2)]
    assert outcomes == ["advertise"] * 3 + ["identity-conflict"] * 2
    assert world.node(host).serving == 1
    assert len(world.events("conflict")) == 1
    assert world.later(2).ask(host, 2, M.SOLICIT).outcome == "advertise"
    assert world.node(host).flaps == 0


def test_accepted_flapping_is_recorded_for_each_move_only() -> None:
    world, host = World(flap_limit=0, conflict_policy=ConflictPolicy.ACCEPT), Host(1)
    world.attached(host, 1)
    for maar in (2, 1, 1, 1):
        assert world.ask(host, maar, M.SOLICIT).outcome == "advertise"
    assert world.node(host).serving == 1
    assert len(world.events("conflict")) == 1


def test_a_relayed_message_with_the_maars_duid_is_not_the_maars_own() -> None:
    """Only in a Relay-forward of its own does a MAAR ask for itself."""
    world, host = World(), Host(1)
    maar = world.domain.maars[1]
    host.duid = maar.relay_id
    inner = relayed(host.message(M.INFORMATION_REQUEST), a_maar(7), mobile=False)
    decision = world.handle(world.request(relayed(inner, maar), maar.relay_address))
    assert told(decision, dmm.Domain) == []
    assert decision.outcome == "reply"


def test_a_query_by_nai_is_a_name_like_a_duid() -> None:
    world = World()
    nai = dmm.MobileNode(Identity(IdentitySubtype.NAI, b"user@example"))
    assert dmm_status(world.query(1, nai)) == 3
    assert dmm_status(world.query(1, dmm.MobileNode(Host(1).hardware))) == 3  # and no attach
    frame = (dmm.MobileNode(Host(1).hardware), attachment(Host(1)))
    by_address = world.query(1, *frame, slaac=True)
    assert len(told(by_address, dmm.AnchoredPrefix)) == 1
    assert isinstance(told(by_address, dmm.AnchoredPrefix)[0].prefix, Prefix)


def test_pd_of_two_nodes_on_one_link_differ() -> None:
    world = World()
    one, two = (world.attached(Host(n), 1, pd()) for n in (1, 2))
    assert set(one.pd[1]) & set(two.pd[1]) == set()
