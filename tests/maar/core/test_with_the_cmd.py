"""The same story with the real CMD's core instead of the fake one: both sides read the wire alike."""

from __future__ import annotations

from dhcp_cmd.core.model import MICROS, Domain, Kind, Link, MaarState, Pool, Settings, State
from dhcp_cmd.core.model import Maar as Row
from dhcp_cmd.core.request import read_request
from dhcp_cmd.service import Cmd
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, first, unwrap
from dmm_wire.dhcpv6.options import IaNa, IaPd
from dmm_wire.mobility import BindingAcknowledgement, encode
from tests.cmd.memory_store import MemoryStore
from tests.maar.core.world import (
    ACCESS,
    DUID,
    MAC,
    NODE,
    FakeCmd,
    World,
    endpoint,
    pools,
    settings,
)

SERVER_DUID = bytes.fromhex("00020000000a7365727665")
IAS = (IaNa(1).encode(), IaPd(2).encode())


def domain() -> Domain:
    rows = [
        Row(n, f"maar{n}", settings(n).relay_id, endpoint(n), endpoint(n), MaarState.ACTIVE)
        for n in (1, 2, 3)
    ]
    return Domain(
        version=1,
        hash_key=bytes(32),
        maars={row.id: row for row in rows},
        links=tuple(Link(n, Prefix.of(settings(n).access[0].link_address, 64)) for n in (1, 2, 3)),
        pools={
            n: (
                Pool(n * 10, n, Kind.LINK, pools(n)[0], 64, 1800, 3600),
                Pool(n * 10 + 1, n, Kind.DELEGATED, pools(n)[1], 60, 1800, 3600),
            )
            for n in (1, 2, 3)
        },
        by_relay_id={row.relay_id: row for row in rows},
    )


class RealCmd(FakeCmd):
    """Answers by `decide` on a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(domain())
        self.cmd = Cmd(self.store, Settings(server_duid=SERVER_DUID))

    def answer(self, data: bytes, now: float) -> tuple[int, bytes]:
        unwrapped = unwrap(data)
        level = unwrapped.relays[0]
        ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ()
        maar = next(each for each in ours if isinstance(each, dmm.Maar))
        number = next(n for n in (1, 2, 3) if endpoint(n) == maar.endpoint)
        request = read_request(data, endpoint(number), dmm.DEFAULT_ENTERPRISE)
        (decision,) = self.cmd.handle([request], lambda: (1_800_000_000 + int(now)) * MICROS)
        assert decision.reply is not None, decision.outcome
        client_id = first(unwrapped.client.options, OptionCode.CLIENTID) or b""
        reply = ClientMessage(
            decision.reply.type,
            unwrapped.client.transaction_id,
            ((int(OptionCode.CLIENTID), client_id), *decision.reply.options),
        )
        options = [
            *((c, body) for c, body in level.options if c == OptionCode.INTERFACE_ID),
            dmm.to_option(dmm.DEFAULT_ENTERPRISE, decision.relay),
            (int(OptionCode.RELAY_MSG), reply.encode()),
        ]
        header = (level.hop_count, level.link_address, level.peer_address)
        return number, RelayMessage(MessageType.RELAY_REPL, *header, tuple(options)).encode()

    def live(self) -> dict[Prefix, int]:
        """Each prefix of the node and the MAAR that anchors it."""
        return {
            row.prefix: row.anchor
            for row in self.store.bindings.values()
            if row.kind is not Kind.ADDRESS and row.state is not State.ENDED
        }


class RealWorld(World):
    def __init__(self) -> None:
        self.real = RealCmd()
        super().__init__(cmd=self.real)

    def say(self, kind: int) -> None:
        assert self.place is not None
        options = [(int(OptionCode.CLIENTID), DUID), *IAS]
        if kind in (MessageType.REQUEST, MessageType.RENEW):
            options.append((int(OptionCode.SERVERID), SERVER_DUID))
        data = ClientMessage(kind, b"abc", tuple(options)).encode()
        maar = self.maars[self.place]
        self.run(maar, maar.agent.client_datagram(ACCESS, NODE, MAC, data, self.now))

    def check(self, count: int) -> None:
        live = self.real.live()
        assert len(live) == count
        for prefix in live:
            for start in (None, 1, 2, 3):
                assert self.trace(prefix, start)[-1] == "node"
        assert self.place is not None
        assert self.roles(self.place) == {
            prefix: "local" if anchor == self.place else "served" for prefix, anchor in live.items()
        }


def test_three_moves_with_the_real_cmd() -> None:
    world = RealWorld()
    for number, count in ((1, 2), (2, 4), (3, 6), (1, 6)):
        world.now += 10
        world.attach(number)
        world.check(count)
    assert all(maar.agent.status(world.now)["domain"]["known"] for maar in world.maars.values())
    for maar in world.maars.values():
        assert not [line for line in maar.log if "refused" in line or "the CMD says" in line]


def test_a_refused_anchor_ends_everywhere() -> None:
    world = RealWorld()
    world.attach(1)
    anchored = set(world.real.live())
    world.now += 10
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.wire.clear()
    refusal = BindingAcknowledgement(155, 1, 0)
    data = encode(refusal, endpoint(1), endpoint(2))
    maar = world.maars[2]
    world.run(maar, maar.agent.mobility_datagram(endpoint(1), data, world.now))
    world.settle()
    assert not anchored & set(world.real.live())
    world.check(2)
    assert not anchored & set(world.roles(1))
