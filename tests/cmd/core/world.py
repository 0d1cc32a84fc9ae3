"""A small mobility domain and hosts in it, for the tests of the core: real bytes in, decisions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    BindingRequest,
    Decision,
    Domain,
    Kind,
    Link,
    Maar,
    MaarState,
    Node,
    Pool,
    Settings,
    State,
)
from dhcp_cmd.core.request import read_request
from dhcp_cmd.service import Cmd
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, RelayMessage
from dmm_wire.dhcpv6.options import (
    ClientLinkLayerAddress,
    IaAddress,
    IaNa,
    IaPd,
    IaPrefix,
    StatusOption,
)
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.memory_store import MemoryStore

ENTERPRISE = 32473
SERVER = bytes.fromhex("00020000000a7365727665")
START = 1_800_000_000 * MICROS

M = MessageType
_Sub = TypeVar("_Sub", bound=dmm.SubOption)


def address(text: str) -> bytes:
    return parse_address(text)


def prefix(text: str) -> Prefix:
    return Prefix.parse(text)


def a_maar(number: int, state: MaarState = MaarState.ACTIVE) -> Maar:
    endpoint = address(f"2001:db8:ffff::{number}")
    return Maar(number, f"maar{number}", b"\x00\x02maar%d" % number, endpoint, endpoint, state)


def pools_of(number: int, lengths: Sequence[int] = (60,), bits: int = 8) -> tuple[Pool, ...]:
    """One LINK pool of /64s and a delegated one of each length, `bits` bits of units in each."""
    link = Prefix.of(address(f"2001:db8:{number:x}00::"), 64 - bits)
    pools = [Pool(number * 10, number, Kind.LINK, link, 64, 1800, 3600)]
    for index, length in enumerate(lengths, 1):
        base = Prefix.of(address(f"2001:db8:{number:x}{index:02x}::"), length - bits)
        pools.append(Pool(number * 10 + index, number, Kind.DELEGATED, base, length, 1800, 3600))
    return tuple(pools)


def a_domain(
    maars: Sequence[Maar] = (), pools: Mapping[int, tuple[Pool, ...]] | None = None
) -> Domain:
    maars = maars or [a_maar(number) for number in (1, 2, 3)]
    return Domain(
        version=1,
        hash_key=bytes(range(32)),
        maars={m.id: m for m in maars},
        links=tuple(Link(m.id, prefix(f"2001:db8:aaaa:{m.id:x}::/64")) for m in maars),
        pools={m.id: pools_of(m.id) for m in maars} if pools is None else pools,
        by_relay_id={m.relay_id: m for m in maars},
    )


def link_address(maar: int) -> bytes:
    return address(f"2001:db8:aaaa:{maar:x}::1")


class Host:
    """An unmodified DHCPv6 client: a DUID and a link-layer address."""

    def __init__(self, number: int, mac: bytes | None = None) -> None:
        self.mac = mac or b"\x02\x00\x00\x00\x00" + bytes((number,))
        self.duid = b"\x00\x03\x00\x01\x02\x00\x00\x00\x01" + bytes((number,))
        self.link_local = address(f"fe80::{number:x}")
        self.identity = Identity(IdentitySubtype.DUID, self.duid)
        self.hardware = Identity(IdentitySubtype.EUI48, self.mac)

    def message(
        self,
        kind: int,
        *options: tuple[int, bytes],
        rapid: bool = False,
        server: bytes | None = SERVER,
        xid: bytes = b"\x01\x02\x03",
    ) -> bytes:
        all_options: list[tuple[int, bytes]] = [(OptionCode.CLIENTID, self.duid)]
        if kind in (M.REQUEST, M.RENEW, M.RELEASE, M.DECLINE) and server is not None:
            all_options.append((OptionCode.SERVERID, server))
        if rapid:
            all_options.append((OptionCode.RAPID_COMMIT, b""))
        return ClientMessage(kind, xid, (*all_options, *options)).encode()


def na(iaid: int = 1, *addresses: bytes) -> tuple[int, bytes]:
    return IaNa(iaid, 0, 0, tuple(IaAddress(each, 0, 0).encode() for each in addresses)).encode()


def pd(iaid: int = 1, *prefixes: Prefix) -> tuple[int, bytes]:
    return IaPd(iaid, 0, 0, tuple(IaPrefix(each, 0, 0).encode() for each in prefixes)).encode()


CAPABILITIES = dmm.CAP_IPV6_IN_IPV6 | dmm.CAP_PMIPV6


def relayed(
    inner: bytes,
    maar: Maar,
    *extra: dmm.SubOption,
    peer: bytes = address("fe80::99"),
    mac: bytes | None = None,
    link: bytes | None = None,
    endpoint: bytes | None = None,
    mobile: bool = True,
    flags: int = 0,
    slaac: bool = False,
) -> bytes:
    options: list[tuple[int, bytes]] = [
        (OptionCode.INTERFACE_ID, b"eth1"),
        (OptionCode.RELAY_ID, maar.relay_id),
    ]
    if mac is not None:
        options.append(ClientLinkLayerAddress(1, mac).encode())
    if mobile:
        claim = dmm.Maar(
            endpoint or maar.endpoint, CAPABILITIES | flags | (dmm.CAP_SLAAC if slaac else 0)
        )
        options.append(dmm.to_option(ENTERPRISE, (claim, *extra)))
    options.append((OptionCode.RELAY_MSG, inner))
    where = link_address(maar.id) if link is None else link
    return RelayMessage(M.RELAY_FORW, 0, where, peer, tuple(options)).encode()


def told(decision: Decision, kind: type[_Sub]) -> list[_Sub]:
    """The sub-options of one kind that the MAAR is told."""
    return [each for each in decision.relay if isinstance(each, kind)]


def told_prefixes(decision: Decision) -> list[Prefix]:
    """What is anchored at the MAAR addressed."""
    return [each.prefix for each in told(decision, dmm.AnchoredPrefix)]


def visit(decision: Decision) -> dmm.Visit:
    (found,) = told(decision, dmm.Visit)
    return found


def dmm_status(decision: Decision) -> int:
    (found,) = told(decision, dmm.Status)
    return int(found.code)


class Answer:
    """A ClientReply, read back from its bytes."""

    def __init__(self, decision: Decision) -> None:
        assert decision.reply is not None
        self.type = decision.reply.type
        self.options: Options = decision.reply.options
        self.status: int | None = None
        self.na: dict[int, dict[bytes, tuple[int, int]]] = {}
        self.pd: dict[int, dict[Prefix, tuple[int, int]]] = {}
        self.ia_status: dict[tuple[str, int], int] = {}
        self.timers: set[tuple[int, int]] = set()
        self.rapid = False
        for code, body in decision.reply.options:
            if code == OptionCode.STATUS_CODE:
                self.status = StatusOption.decode(body).code
            elif code == OptionCode.RAPID_COMMIT:
                self.rapid = True
            elif code == OptionCode.IA_NA:
                self._ia_na(IaNa.decode(body))
            elif code == OptionCode.IA_PD:
                self._ia_pd(IaPd.decode(body))

    def _ia_na(self, ia: IaNa) -> None:
        self.timers.add((ia.t1, ia.t2))
        leases = self.na.setdefault(ia.iaid, {})
        for code, body in ia.options:
            if code == OptionCode.IAADDR:
                lease = IaAddress.decode(body)
                assert lease.address not in leases
                leases[lease.address] = (lease.preferred, lease.valid)
            elif code == OptionCode.STATUS_CODE:
                self.ia_status["na", ia.iaid] = StatusOption.decode(body).code

    def _ia_pd(self, ia: IaPd) -> None:
        self.timers.add((ia.t1, ia.t2))
        leases = self.pd.setdefault(ia.iaid, {})
        for code, body in ia.options:
            if code == OptionCode.IAPREFIX:
                lease = IaPrefix.decode(body)
                assert lease.prefix not in leases
                leases[lease.prefix] = (lease.preferred, lease.valid)
            elif code == OptionCode.STATUS_CODE:
                self.ia_status["pd", ia.iaid] = StatusOption.decode(body).code


class World:
    """A CMD on a memory store, MAARs 1 to 3, a clock that the test turns."""

    def __init__(self, domain: Domain | None = None, **settings: object) -> None:
        self.domain = domain or a_domain()
        self.store = MemoryStore(self.domain)
        self.settings = replace(Settings(server_duid=SERVER), **settings)  # type: ignore[arg-type]
        self.cmd = Cmd(self.store, self.settings)
        self.now = START
        self.asked = 0

    def transaction_id(self) -> bytes:
        """Another one for each message."""
        self.asked += 1
        return self.asked.to_bytes(3, "big")

    def later(self, seconds: float) -> World:
        self.now += int(seconds * MICROS)
        return self

    def change(self, **fields: object) -> None:
        """Change the domain as the operator would."""
        self.domain = replace(self.domain, **fields)  # type: ignore[arg-type]
        self.store.domain = self.domain

    def drain(self, maar: int) -> None:
        maars = dict(self.domain.maars)
        maars[maar] = replace(maars[maar], state=MaarState.DRAINING)
        self.change(maars=maars, by_relay_id={m.relay_id: m for m in maars.values()})

    def request(self, data: bytes, source: bytes) -> BindingRequest:
        return read_request(data, source, ENTERPRISE)

    def ask(
        self,
        host: Host,
        maar: int,
        kind: int,
        *options: tuple[int, bytes],
        rapid: bool = False,
        mac: bool = True,
        extra: Sequence[dmm.SubOption] = (),
        mobile: bool = True,
    ) -> Decision:
        """A host's message, relayed by a MAAR (or, not `mobile`, by a relay that knows nothing of mobility)."""
        return self.handle(
            self.packet(
                host, maar, kind, *options, rapid=rapid, mac=mac, extra=extra, mobile=mobile
            )
        )

    def packet(
        self,
        host: Host,
        maar: int,
        kind: int,
        *options: tuple[int, bytes],
        rapid: bool = False,
        mac: bool = True,
        extra: Sequence[dmm.SubOption] = (),
        mobile: bool = True,
    ) -> BindingRequest:
        via = self.domain.maars[maar]
        data = relayed(
            host.message(kind, *options, rapid=rapid, xid=self.transaction_id()),
            via,
            *extra,
            peer=host.link_local,
            mac=host.mac if mac else None,
            mobile=mobile,
        )
        return self.request(data, via.relay_address)

    def query(
        self,
        maar: int,
        *extra: dmm.SubOption,
        link: bytes | None = None,
        flags: int = 0,
        slaac: bool = False,
        **forged: bytes,
    ) -> Decision:
        """What a MAAR asks for itself. `slaac`: nodes may make their own addresses there."""
        via = self.domain.maars.get(maar) or a_maar(maar)
        inner = ClientMessage(
            M.INFORMATION_REQUEST,
            self.transaction_id(),
            ((OptionCode.CLIENTID, via.relay_id),),
        ).encode()
        data = relayed(
            inner,
            via,
            *extra,
            peer=via.endpoint,
            link=link,
            endpoint=forged.get("endpoint"),
            flags=flags,
            slaac=slaac,
        )
        return self.handle(self.request(data, forged.get("source", via.relay_address)))

    def direct(
        self, host: Host, kind: int, *options: tuple[int, bytes], link: bytes = UNSPECIFIED
    ) -> Decision:
        """A message without a relay, heard on `link`."""
        message = host.message(kind, *options, xid=self.transaction_id())
        return self.handle(self.request(message, host.link_local)._replace(link=link))

    def handle(self, request: BindingRequest) -> Decision:
        (decision,) = self.handle_all([request])
        return decision

    def handle_all(self, requests: Sequence[BindingRequest]) -> list[Decision]:
        """A batch."""
        return self.cmd.handle(requests, lambda: self.now)

    def attached(self, host: Host, maar: int, *ias: tuple[int, bytes]) -> Answer:
        """The host asks there for its IAs and gets them."""
        answer = Answer(self.ask(host, maar, M.REQUEST, *(ias or (na(), pd()))))
        assert answer.type == M.REPLY
        return answer

    def node(self, host: Host) -> Node:
        return self.store.node(host.identity)

    def rows(self, host: Host | None = None, **fields: object) -> list[Binding]:
        rows = self.store.bindings.values()
        node = None if host is None else self.node(host).id
        return [
            b
            for b in rows
            if (node is None or b.node == node)
            and all(getattr(b, name) == value for name, value in fields.items())
        ]

    def row(self, host: Host, **fields: object) -> Binding:
        (found,) = self.rows(host, **fields)
        return found

    def live(self, host: Host) -> list[Binding]:
        return [b for b in self.rows(host) if b.state is not State.ENDED]

    def events(self, *types: str) -> list[tuple[str, str]]:
        return [
            (e.type.value, e.cause)
            for e in self.store.history
            if not types or e.type.value in types
        ]


def attachment(host: Host, age_ms: int = 0) -> dmm.Attachment:
    return dmm.Attachment(age_ms, 2, 4, 1, host.mac)
