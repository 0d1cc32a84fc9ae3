"""MAARs and the real CMD's core, where the CMD is asked by DHCPv6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dhcp_cmd.core.model import MICROS, Settings
from dhcp_cmd.core.request import read_request
from dhcp_cmd.service import Cmd
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, first, unwrap
from dmm_wire.identity import Identity, IdentitySubtype
from relay_maar.core.relay import HANDOFF_NOT_CHANGED
from relay_maar.core.settings import AttachSettings
from tests.cmd.memory_store import MemoryStore
from tests.maar.core.noticing import Noticing, Question
from tests.maar.core.test_with_the_cmd import IAS, SERVER_DUID, RealCmd, domain
from tests.maar.core.world import ACCESS, DUID, MAC, NODE, Packet, endpoint

HARDWARE = Identity(IdentitySubtype.EUI48, MAC)
QUERY, CLIENT = "query", "client"


class _Cmd(RealCmd):
    """Says nothing where the CMD says nothing; its clock is exact."""

    def __init__(self, flap_interval: int) -> None:
        super().__init__()
        self.store = MemoryStore(domain())
        self.cmd = Cmd(self.store, Settings(server_duid=SERVER_DUID, flap_interval=flap_interval))
        self.asked: list[tuple[int, str, dmm.Attachment | None]] = []
        """Of each message: the MAAR, "query" or "client", and the ATTACHMENT."""

    def reply(self, data: bytes, now: float) -> tuple[int, bytes] | None:
        unwrapped = unwrap(data)
        level = unwrapped.relays[0]
        ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ()
        maar = next(each for each in ours if isinstance(each, dmm.Maar))
        number = next(n for n in (1, 2, 3) if endpoint(n) == maar.endpoint)
        own = unwrapped.client.type == MessageType.INFORMATION_REQUEST
        attachment = next((each for each in ours if isinstance(each, dmm.Attachment)), None)
        if attachment is not None:
            self.asked.append((number, QUERY if own else CLIENT, attachment))
        request = read_request(data, endpoint(number), dmm.DEFAULT_ENTERPRISE)
        clock = round((1_800_000_000 + now) * MICROS)
        (decision,) = self.cmd.handle([request], lambda: clock)
        if decision.reply is None:
            return None
        client_id = first(unwrapped.client.options, OptionCode.CLIENTID) or b""
        answer = ClientMessage(
            decision.reply.type,
            unwrapped.client.transaction_id,
            ((int(OptionCode.CLIENTID), client_id), *decision.reply.options),
        )
        options = [
            *((c, body) for c, body in level.options if c == OptionCode.INTERFACE_ID),
            dmm.to_option(dmm.DEFAULT_ENTERPRISE, decision.relay),
            (int(OptionCode.RELAY_MSG), answer.encode()),
        ]
        header = (level.hop_count, level.link_address, level.peer_address)
        return number, RelayMessage(MessageType.RELAY_REPL, *header, tuple(options)).encode()

    def handovers(self) -> list[tuple[int | None, int | None]]:
        return [(e.from_maar, e.to_maar) for e in self.store.history if e.type == "handover"]


class AttachWorld(Noticing):
    """`slaac`: the links serve hosts without a client. `own` as of World."""

    def __init__(
        self,
        *,
        slaac: bool = False,
        flap_interval: int = 2,
        attach: AttachSettings | None = None,
        own: Mapping[int, dict[str, Any]] | None = None,
    ) -> None:
        self.real = _Cmd(flap_interval)
        self.transaction = 0
        changes: dict[str, Any] = {} if attach is None else {"attach": attach}
        super().__init__(cmd=self.real, slaac=slaac, own=own, **changes)

    # --- what happens ---

    def deliver(self, packet: Packet) -> None:
        if packet.kind != "up":
            super().deliver(packet)
        elif self.cmd_up:
            replied = self.real.reply(packet.data, self.now)
            if replied is not None:
                number, reply = replied
                self._emit(Packet("down", packet.destination, endpoint(number), reply))

    def say(self, kind: int, ias: Sequence[tuple[int, bytes]] = IAS) -> None:
        assert self.place is not None
        options = [(int(OptionCode.CLIENTID), DUID), *ias]
        if kind in (MessageType.REQUEST, MessageType.RENEW):
            options.append((int(OptionCode.SERVERID), SERVER_DUID))
        self.transaction += 1
        xid = self.transaction
        data = ClientMessage(kind, xid.to_bytes(3, "big"), tuple(options)).encode()
        maar = self.maars[self.place]
        self.run(maar, maar.agent.client_datagram(ACCESS, NODE, MAC, data, self.now))

    def settled_at(self, number: int) -> AttachWorld:
        """The node has leases from a MAAR, by DHCPv6 alone."""
        self.place = number
        for kind in (MessageType.SOLICIT, MessageType.REQUEST):
            self.say(kind)
            self.settle()
        self.go_on(60)
        return self

    # --- how it is ---

    def questions(self) -> list[Question]:
        return [
            Question(number, attachment is not None and attachment.handoff == HANDOFF_NOT_CHANGED)
            for number, kind, attachment in self.real.asked
            if kind == QUERY
        ]

    def handovers(self) -> list[tuple[int | None, int | None]]:
        return self.real.handovers()

    def live(self) -> dict[Prefix, int]:
        return self.real.live()

    def check(self, ends: tuple[str, ...] = ("node",)) -> None:
        self.check_place(ends)
