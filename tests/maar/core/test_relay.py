"""The relay agent: what goes up, what goes down, what is dropped (RFC 9915 section 19, RFC 8987)."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, RelayMessage, first, parse
from dmm_wire.dhcpv6.options import ClientLinkLayerAddress
from dmm_wire.identity import Identity, IdentitySubtype
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import Neighbour, Put, Route, ToNode
from tests.maar.core.world import (
    ACCESS,
    DUID,
    MAC,
    NODE,
    NODE_ID,
    SERVER,
    FakeCmd,
    World,
    client_message,
    endpoint,
    link_prefix,
    settings,
)

LINK_ADDRESS = parse_address("2001:db8:1:100::1")
GLOBAL = parse_address("2001:db8:1:100::77")


def agent(*, relays_below: bool = False) -> Agent:
    """A MAAR that has been told its domain, which is itself."""
    maar = Agent(settings(1, relays_below=relays_below), jitter=lambda: 0.5)
    cmd = FakeCmd(domain=(1,))
    for action in maar.start(frozenset(), [], 0.0):
        if isinstance(action, act.Apply):
            maar.applied(action.token, {}, 0.0)
        elif isinstance(action, act.SendToServers):
            assert maar.server_datagram(SERVER, cmd.answer(action.data, 0.0)[1], 0.0) == []
    return maar


def forwarded(actions: list[act.Action]) -> RelayMessage:
    (data,) = [each.data for each in actions if isinstance(each, act.SendToServers)]
    message = parse(data)
    assert isinstance(message, RelayMessage)
    return message


def counters(maar: Agent) -> dict[str, int]:
    found = maar.status(1.0)["counters"]
    assert isinstance(found, dict)
    return found


def relay_forward(
    inner: bytes, *, hop_count: int = 0, link: bytes = UNSPECIFIED, options: Options = ()
) -> bytes:
    all_options = (*options, (int(OptionCode.RELAY_MSG), inner))
    return RelayMessage(MessageType.RELAY_FORW, hop_count, link, NODE, all_options).encode()


def test_a_clients_message_goes_up_byte_for_byte() -> None:
    message = client_message(MessageType.SOLICIT) + b"\xff\xf0\x00\x01x"  # an option nobody knows
    up = forwarded(agent().client_datagram(ACCESS, NODE, MAC, message, 1.0))
    assert (up.type, up.hop_count) == (MessageType.RELAY_FORW, 0)
    assert (up.link_address, up.peer_address) == (LINK_ADDRESS, NODE)
    assert dict(up.options) == {
        OptionCode.INTERFACE_ID: ACCESS.encode(),
        OptionCode.CLIENT_LINKLAYER_ADDR: ClientLinkLayerAddress(1, MAC).encode()[1],
        OptionCode.RELAY_ID: settings(1).relay_id,
        OptionCode.VENDOR_OPTS: dmm.to_option(
            dmm.DEFAULT_ENTERPRISE,
            (dmm.Maar(endpoint(1), 0xC000), dmm.Attachment(0, 4, 4, 1, MAC)),
        )[1],
        OptionCode.RELAY_MSG: message,
    }


def test_a_node_that_is_known_here_has_not_changed() -> None:
    world = World()
    world.attach(1)
    up = world.maars[1].agent.client_datagram(ACCESS, NODE, MAC, client_message(5), world.now)
    ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, forwarded(up).options)
    assert ours is not None
    assert dmm.Attachment(0, 5, 4, 1, MAC) in ours


def test_an_unknown_link_layer_address_is_left_out() -> None:
    up = forwarded(agent().client_datagram(ACCESS, NODE, None, client_message(1), 1.0))
    assert first(up.options, OptionCode.CLIENT_LINKLAYER_ADDR) is None
    ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, up.options)
    assert ours is not None
    assert dmm.Attachment(0, 4, 4, 0, b"") in ours


@pytest.mark.parametrize("kind", [1, 3, 4, 5, 6, 8, 9, 11, 14, 18, 22, 200])
def test_relayed_whether_known_or_not(kind: int) -> None:
    actions = agent().client_datagram(ACCESS, NODE, MAC, client_message(kind), 1.0)
    assert first(forwarded(actions).options, OptionCode.RELAY_MSG) == client_message(kind)


FORGED = dmm.to_option(dmm.DEFAULT_ENTERPRISE, (dmm.Maar(endpoint(2), 0xC000),))


@pytest.mark.parametrize(
    ("data", "source", "below", "reason"),
    [
        (client_message(MessageType.ADVERTISE), NODE, True, "message-type"),
        (client_message(MessageType.REPLY), NODE, True, "message-type"),
        (client_message(MessageType.RECONFIGURE), NODE, True, "message-type"),
        (b"\x0d" + bytes(40), NODE, True, "message-type"),
        (b"", NODE, True, "truncated"),
        (b"\x01ab", NODE, True, "truncated"),
        (client_message(1)[:-1], NODE, True, "truncated"),
        (b"\x01abc" + bytes(65200), NODE, True, "oversized"),
        (client_message(1), UNSPECIFIED, True, "source"),
        (client_message(1), b"\xff\x02" + bytes(14), True, "source"),
        (relay_forward(client_message(1)), NODE, False, "relay-below"),
        (relay_forward(client_message(1), options=(FORGED,)), NODE, False, "relay-below"),
        (relay_forward(client_message(1), options=(FORGED,)), NODE, True, "forged-options"),
        (
            relay_forward(relay_forward(client_message(1), options=(FORGED,)), hop_count=1),
            NODE,
            True,
            "forged-options",
        ),
        (relay_forward(client_message(1), hop_count=8), NODE, True, "hop-count"),
        (relay_forward(client_message(1), hop_count=255), NODE, True, "hop-count"),
        (RelayMessage(12, 0, UNSPECIFIED, NODE).encode(), NODE, True, "missing"),
    ],
)
def test_dropped_and_counted(data: bytes, source: bytes, below: bool, reason: str) -> None:
    maar = agent(relays_below=below)
    assert maar.client_datagram(ACCESS, source, MAC, data, 1.0) == []
    assert counters(maar) == {f"client.{reason}": 1}


def test_on_an_unknown_interface() -> None:
    maar = agent()
    assert maar.client_datagram("eth7", NODE, MAC, client_message(1), 1.0) == []
    assert counters(maar) == {"client.interface": 1}


@pytest.mark.parametrize(("source", "link"), [(NODE, LINK_ADDRESS), (GLOBAL, UNSPECIFIED)])
def test_a_relay_below_where_the_link_allows_it(source: bytes, link: bytes) -> None:
    data = relay_forward(client_message(1), hop_count=7)
    up = forwarded(agent(relays_below=True).client_datagram(ACCESS, source, MAC, data, 1.0))
    assert (up.hop_count, up.link_address, up.peer_address) == (8, link, source)
    assert first(up.options, OptionCode.RELAY_MSG) == data
    assert first(up.options, OptionCode.INTERFACE_ID) == ACCESS.encode()
    # Option 79 is the first relay agent's to add (RFC 6939 section 5).
    assert first(up.options, OptionCode.CLIENT_LINKLAYER_ADDR) is None


# --- Relay-replies ---


def relay_reply(
    inner: bytes,
    *suboptions: dmm.SubOption,
    peer: bytes = NODE,
    link: bytes = LINK_ADDRESS,
    interface: bytes | None = ACCESS.encode(),
    raw: Options = (),
) -> bytes:
    options = [(int(OptionCode.RELAY_MSG), inner), *raw]
    if interface is not None:
        options.append((int(OptionCode.INTERFACE_ID), interface))
    if suboptions:
        options.append(dmm.to_option(dmm.DEFAULT_ENTERPRISE, suboptions))
    return RelayMessage(MessageType.RELAY_REPL, 0, link, peer, tuple(options)).encode()


REPLY = client_message(MessageType.REPLY)
TO_CLIENT = act.SendToClient(ACCESS, NODE, 546, REPLY)


@pytest.mark.parametrize("interface", [ACCESS.encode(), None])
def test_plain_dhcpv6_passes_through(interface: bytes | None) -> None:
    maar = agent()
    assert maar.server_datagram(SERVER, relay_reply(REPLY, interface=interface), 1.0) == [TO_CLIENT]


def test_to_a_relay_below() -> None:
    inner = relay_reply(REPLY)
    (down,) = agent().server_datagram(SERVER, relay_reply(inner, peer=GLOBAL), 1.0)
    assert down == act.SendToClient(ACCESS, GLOBAL, 547, inner)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (relay_reply(REPLY, interface=b"other"), "link"),
        (relay_reply(REPLY, interface=None, link=GLOBAL), "link"),
        (relay_reply(REPLY, peer=UNSPECIFIED), "peer-address"),
        (relay_reply(b""), "missing"),
        (RelayMessage(13, 0, UNSPECIFIED, NODE).encode(), "missing"),
        (REPLY, "message-type"),
        (relay_forward(REPLY), "message-type"),
        (b"\x0d", "truncated"),
        (relay_reply(REPLY, peer=endpoint(1)), "client-id"),
        (relay_reply(client_message(7, settings(1).relay_id), peer=endpoint(1)), "transaction-id"),
    ],
)
def test_replies_dropped_and_counted(data: bytes, reason: str) -> None:
    maar = agent()
    assert maar.server_datagram(SERVER, data, 1.0) == []
    assert counters(maar) == {f"server.{reason}": 1}


def test_only_configured_servers_are_heard() -> None:
    maar = agent()
    assert maar.server_datagram(GLOBAL, relay_reply(REPLY), 1.0) == []
    assert counters(maar) == {"server.unknown": 1}


def test_unreadable_options_do_not_cost_the_client_its_message() -> None:
    maar = agent()
    broken = (dmm.to_option(dmm.DEFAULT_ENTERPRISE, ())[0], bytes.fromhex("00007ed900050001ff"))
    assert maar.server_datagram(SERVER, relay_reply(REPLY, raw=(broken,)), 1.0) == [TO_CLIENT]
    assert counters(maar) == {"server.options-length": 1, "server.relayed": 1}


@pytest.mark.parametrize("status", [each for each in dmm.DmmStatus if each])
def test_what_the_cmd_refuses_is_counted_and_changes_nothing(status: dmm.DmmStatus) -> None:
    maar = agent()
    visit = dmm.Visit(5, UNSPECIFIED)
    data = relay_reply(REPLY, dmm.Status(status, "no\x1b[2J"), visit)
    log, down = maar.server_datagram(SERVER, data, 1.0)
    assert isinstance(log, act.Log)
    assert "\x1b" not in log.line
    assert down == TO_CLIENT
    assert maar.status(1.0)["sessions"] == []
    assert f"cmd.{status.name.lower().replace('_', '-')}" in counters(maar)


@pytest.mark.parametrize("status", [each for each in dmm.DmmStatus if each])
def test_nothing_else_in_a_refused_answer_to_our_own_question_is_believed(
    status: dmm.DmmStatus,
) -> None:
    maar = agent()
    (question,) = [each for each in maar.tick(60.0) if isinstance(each, act.SendToServers)]
    _, granted = FakeCmd(domain=(1, 2)).answer(question.data, 60.0)
    answer = parse(granted)
    assert isinstance(answer, RelayMessage)
    domain = dmm.Domain((endpoint(1), endpoint(2)))
    options = tuple(each for each in answer.options if each[0] != OptionCode.VENDOR_OPTS)
    refused = dmm.to_option(dmm.DEFAULT_ENTERPRISE, (dmm.Status(status, "no"), domain))
    data = answer._replace(options=(*options, refused)).encode()
    (log,) = maar.server_datagram(SERVER, data, 60.0)
    assert isinstance(log, act.Log)
    assert log.level == "warning"
    assert maar.status(60.0)["domain"]["peers"] == []
    assert f"cmd.{status.name.lower().replace('_', '-')}" in counters(maar)


def visit_reply(generation: int, *more: dmm.SubOption) -> bytes:
    return relay_reply(REPLY, dmm.Status(0), dmm.Visit(generation, UNSPECIFIED), *more)


def test_the_clients_message_waits_for_the_kernel_and_for_nothing_else() -> None:
    maar = agent()
    maar.client_datagram(ACCESS, NODE, MAC, client_message(3), 1.0)
    local = dmm.AnchoredPrefix(link_prefix(1), 100, 200)
    remote = dmm.PreviousMaar(link_prefix(2), 0, 200, False, endpoint(2))
    save, apply, log = maar.server_datagram(SERVER, visit_reply(5, local, remote), 1.0)
    assert isinstance(log, act.Log)
    assert isinstance(save, act.SaveSession)
    assert isinstance(apply, act.Apply)
    assert save.identity == NODE_ID
    assert log.line == (
        f"duid:{DUID.hex()} came to access0: 1 local, 1 served prefixes, generation 5, PBU to 1 peer"
    )
    news, down, pbu, watch = maar.applied(apply.token, {}, 1.0)
    assert watch == act.WatchPackets(ACCESS, frozenset({MAC}))
    assert isinstance(news, act.SendRouterAdvertisement)
    assert (news.destination, news.data.count(link_prefix(1).address)) == (NODE, 1)
    assert down == TO_CLIENT
    assert isinstance(pbu, act.SendMobility)
    assert pbu.destination == endpoint(2)
    wanted = [change.item for change in apply.changes]
    assert Route(link_prefix(1), ToNode(ACCESS, NODE)) in wanted
    assert Neighbour(ACCESS, NODE, MAC) in wanted


def test_the_clients_message_goes_on_when_the_kernel_refuses() -> None:
    maar = agent()
    remote = dmm.PreviousMaar(link_prefix(2), 0, 200, False, endpoint(2))
    actions = maar.server_datagram(SERVER, visit_reply(5, remote), 1.0)
    (apply,) = [each for each in actions if isinstance(each, act.Apply)]
    route = Route(link_prefix(2), ToNode(ACCESS, NODE))
    log, _, down = maar.applied(apply.token, {route.key: "ENOMEM"}, 1.0)
    assert isinstance(log, act.Log)
    assert log.level == "error"
    assert down == TO_CLIENT
    # The PBU comes when the kernel took it after all: tried again after one second.
    assert maar.deadline() is not None
    (again,) = [each for each in maar.tick(2.0) if isinstance(each, act.Apply)]
    assert [change.item for change in again.changes] == [route]
    (pbu,) = maar.applied(again.token, {}, 2.0)
    assert isinstance(pbu, act.SendMobility)


def test_an_older_visit_is_stale_but_its_message_goes_on() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    maar = world.maars[1].agent
    roles = world.roles(1)
    for generation in (1, 2):
        local = dmm.AnchoredPrefix(link_prefix(1), 100, 200)
        actions = maar.server_datagram(SERVER, visit_reply(generation, local), world.now)
        assert actions[0] == TO_CLIENT
        # Whether it was only late, or the CMD knows less than we, it is asked.
        assert [type(each) for each in actions[1:]] == [act.SendToServers] * (generation < 2)
    assert world.roles(1) == roles
    assert counters(maar)["visit.stale"] == 2


def test_a_node_that_is_only_served_is_a_neighbour_too() -> None:
    maar = agent()
    maar.client_datagram(ACCESS, NODE, MAC, client_message(1), 1.0)
    remote = dmm.PreviousMaar(link_prefix(2), 0, 200, False, endpoint(2))
    actions = maar.server_datagram(SERVER, visit_reply(5, remote), 1.0)
    (apply,) = [each for each in actions if isinstance(each, act.Apply)]
    assert Put(Neighbour(ACCESS, NODE, MAC)) in apply.changes


def test_one_node_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.attach(1)
    maar = world.maars[1].agent
    monkeypatch.setattr("relay_maar.core.cache.MAX_SESSIONS", 1)
    kernel = dict(world.maars[1].kernel.items)
    other = Identity(IdentitySubtype.DUID, DUID[:-1] + b"\xbb")
    local = dmm.AnchoredPrefix(Prefix.parse("2001:db8:1:155::/64"), 100, 200)
    data = visit_reply(5, dmm.MobileNode(other), local)
    assert maar.server_datagram(SERVER, data, world.now) == [TO_CLIENT]
    assert counters(maar)["visit.session-limit"] == 1
    assert world.maars[1].kernel.items == kernel
    # Those that are known are served on.
    world.attach(1)
    world.check_reached()


def test_a_node_behind_a_lightweight_relay_agent_is_on_our_link() -> None:
    maar = agent()
    inner = relay_reply(REPLY, link=UNSPECIFIED, peer=NODE, interface=b"port 3")
    data = relay_reply(
        inner, dmm.Visit(5, UNSPECIFIED), dmm.AnchoredPrefix(link_prefix(1), 100, 200)
    )
    actions = maar.server_datagram(SERVER, data, 1.0)
    (apply,) = [each for each in actions if isinstance(each, act.Apply)]
    assert [each.item for each in apply.changes] == [Route(link_prefix(1), ToNode(ACCESS, NODE))]
    down = maar.applied(apply.token, {}, 1.0)[-1]
    assert down == act.SendToClient(ACCESS, NODE, 547, inner)


def test_a_node_behind_a_router_is_not() -> None:
    maar = agent()
    inner = relay_reply(REPLY, link=GLOBAL, peer=NODE)
    data = relay_reply(inner, dmm.Visit(5, UNSPECIFIED), peer=GLOBAL)
    assert maar.server_datagram(SERVER, data, 1.0) == [act.SendToClient(ACCESS, GLOBAL, 547, inner)]
    assert counters(maar)["visit.off-link"] == 1


def test_the_cmds_name_for_the_node_counts() -> None:
    maar = agent()
    data = visit_reply(5, dmm.MobileNode(NODE_ID))
    other = data.replace(DUID, DUID[:-1] + b"\xbb", 1)
    actions = maar.server_datagram(SERVER, other, 1.0)
    (save,) = [each for each in actions if isinstance(each, act.SaveSession)]
    assert save.identity == NODE_ID


def test_a_message_without_client_id_says_nothing_of_a_node() -> None:
    maar = agent()
    bare = ClientMessage(MessageType.REPLY, b"abc").encode()
    data = relay_reply(bare, dmm.Visit(5, UNSPECIFIED))
    assert maar.server_datagram(SERVER, data, 1.0) == [act.SendToClient(ACCESS, NODE, 546, bare)]
    assert counters(maar)["visit.unidentified"] == 1


@pytest.mark.parametrize("prefix", ["::/0", "fe80::/64", "ff02::/64", "2000::/3"])
def test_prefixes_that_no_node_has_are_passed_over(prefix: str) -> None:
    maar = agent()
    named = dmm.AnchoredPrefix(Prefix.parse(prefix), 100, 200)
    actions = maar.server_datagram(SERVER, visit_reply(5, named), 1.0)
    assert not [each for each in actions if isinstance(each, act.Apply)]
    assert counters(maar)["visit.bad-prefix"] == 1
