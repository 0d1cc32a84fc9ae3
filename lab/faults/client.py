"""A DHCPv6 client as a pure state machine (RFC 9915 section 18.2): IA_NA and IA_PD, repeated as the RFC has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, every, first, parse
from dmm_wire.dhcpv6.options import (
    ElapsedTime,
    IaAddress,
    IaNa,
    IaPd,
    IaPrefix,
    StatusOption,
)
from lab.faults import frames

LINK = 64
_IAID = 1
_HOST = 128


@dataclass(frozen=True, slots=True)
class _Patience:
    """RFC 9915 section 7.6, seconds: the first wait, the longest, and after how many sendings it ends."""

    first: float
    longest: float
    times: int = 0


_PATIENCE = {
    MessageType.SOLICIT: _Patience(1, 3600),
    MessageType.REQUEST: _Patience(1, 30, 10),
    MessageType.RENEW: _Patience(10, 600),
    MessageType.REBIND: _Patience(10, 600),
    MessageType.RELEASE: _Patience(1, 0, 4),
}


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A message that is not answered yet."""

    kind: MessageType
    xid: bytes
    options: Options
    began: float
    again: float
    wait: float
    sent: int


class Client:
    """One node's client. `leases` has what it holds, an address as its /128, and whether that is preferred."""

    def __init__(self, mac: bytes, draws: Random) -> None:
        self.mac = mac
        self.duid = b"\x00\x03\x00\x01" + mac
        self.leases: dict[Prefix, bool] = {}
        self.problems: list[str] = []
        """What a server must not do, and did."""
        self._draws = draws
        self._exchange: _Exchange | None = None
        self._server = b""

    # --- what it is told to do ---

    def attach(self, now: float, *, afresh: bool) -> list[bytes]:
        """There is a new link: Rebind as dhcpcd or, `afresh`, Solicit without the old values as systemd-networkd."""
        if self.leases and not afresh:
            return self._begin(MessageType.REBIND, self._associations(self.leases), now)
        self.leases = {}
        return self._solicit(now)

    def renew(self, now: float) -> list[bytes]:
        """Renew all that it holds."""
        options = (*self._server_id(), *self._associations(self.leases))
        return self._begin(MessageType.RENEW, options, now)

    def release(self, now: float, leases: set[Prefix]) -> list[bytes]:
        """Release some of what it holds, which it does not use from now on."""
        for lease in leases:
            del self.leases[lease]
        gone = dict.fromkeys(leases, False)
        options = (*self._server_id(), *self._associations(gone))
        return self._begin(MessageType.RELEASE, options, now)

    def detach(self) -> None:
        """The link is gone, and with it what was asked there."""
        self._exchange = None

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer."""
        return self._exchange is not None

    @property
    def prefixes(self) -> dict[Prefix, bool]:
        """The prefixes of what it holds, the unit of mobility, and whether each is preferred."""
        found: dict[Prefix, bool] = {}
        for lease, preferred in self.leases.items():
            prefix = Prefix.of(lease.address, LINK) if lease.length == _HOST else lease
            found[prefix] = found.get(prefix, False) or preferred
        return found

    # --- what happens ---

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """A message from a server; what answers none of ours is discarded."""
        message, exchange = parse(data), self._exchange
        if exchange is None or not isinstance(message, ClientMessage):
            return []
        if message.transaction_id != exchange.xid:
            return []
        if first(message.options, OptionCode.CLIENTID) != self.duid:
            self.problems.append("a message for another client")
            return []
        self._server = first(message.options, OptionCode.SERVERID) or b""
        if message.type == MessageType.ADVERTISE and exchange.kind is MessageType.SOLICIT:
            return self._request(message, now)
        if message.type != MessageType.REPLY or _status(message.options) == StatusCode.UNSPEC_FAIL:
            return []  # it asks again, no sooner than without this answer (RFC 9915 section 18.2.10)
        self._exchange = None
        if exchange.kind is MessageType.RELEASE:
            return []
        return self._replied(exchange, message, now)

    def deadline(self) -> float | None:
        """When it sends again."""
        return None if self._exchange is None else self._exchange.again

    def due(self, now: float) -> list[bytes]:
        """Send again (RFC 9915 section 15), or give up."""
        exchange = self._exchange
        if exchange is None or now < exchange.again:
            return []
        patience = _PATIENCE[exchange.kind]
        if patience.times and exchange.sent >= patience.times:
            self._exchange = None
            return self._solicit(now) if exchange.kind is MessageType.REQUEST else []
        wait = exchange.wait * (2 + self._jitter())
        if patience.longest:
            wait = min(wait, patience.longest * (1 + self._jitter()))
        exchange = replace(exchange, again=now + wait, wait=wait, sent=exchange.sent + 1)
        self._exchange = exchange
        return [self._message(exchange, now)]

    # --- the parts ---

    def _replied(self, exchange: _Exchange, reply: ClientMessage, now: float) -> list[bytes]:
        status = _status(reply.options)
        leases, unbound = _leases(reply.options)
        if status != StatusCode.SUCCESS:
            self.problems.append(f"{exchange.kind.name} answered with status {status}")
        if unbound and exchange.kind in (MessageType.RENEW, MessageType.REBIND):
            # RFC 9915 section 18.2.10.1: a Request for them; one that has lost all may begin anew.
            self.leases = {}
            return self._solicit(now)
        forgotten = set(self.leases) - set(leases)
        self.leases = {lease: preferred for lease, (preferred, valid) in leases.items() if valid}
        if forgotten:
            self.problems.append(f"a Reply says nothing of {', '.join(map(str, forgotten))}")
        return []

    def _solicit(self, now: float) -> list[bytes]:
        rapid: Options = (
            ((int(OptionCode.RAPID_COMMIT), b""),) if self._draws.random() < 0.5 else ()
        )
        nothing = (IaNa(_IAID).encode(), IaPd(_IAID).encode())
        return self._begin(MessageType.SOLICIT, (*rapid, *nothing), now)

    def _request(self, advertise: ClientMessage, now: float) -> list[bytes]:
        leases, _ = _leases(advertise.options)
        offered = {lease: preferred for lease, (preferred, valid) in leases.items() if valid}
        if not offered:
            return []
        options = (*self._server_id(), *self._associations(offered))
        return self._begin(MessageType.REQUEST, options, now)

    def _begin(self, kind: MessageType, options: Options, now: float) -> list[bytes]:
        wait = _PATIENCE[kind].first * (1 + self._jitter())
        xid = self._draws.randbytes(3)
        self._exchange = _Exchange(kind, xid, options, now, now + wait, wait, 1)
        return [self._message(self._exchange, now)]

    def _message(self, exchange: _Exchange, now: float) -> bytes:
        own: Options = (
            (int(OptionCode.CLIENTID), self.duid),
            ElapsedTime(min(int((now - exchange.began) * 100), 0xFFFF)).encode(),
        )
        data = ClientMessage(exchange.kind, exchange.xid, own + exchange.options).encode()
        source = frames.link_local(self.mac)
        return frames.udp(self.mac, source, frames.ALL_AGENTS, (CLIENT_PORT, SERVER_PORT), data)

    def _associations(self, leases: dict[Prefix, bool]) -> Options:
        addresses = tuple(IaAddress(p.address).encode() for p in leases if p.length == _HOST)
        prefixes = tuple(IaPrefix(p).encode() for p in leases if p.length != _HOST)
        both: list[tuple[int, bytes]] = []
        if addresses:
            both.append(IaNa(_IAID, 0, 0, addresses).encode())
        if prefixes:
            both.append(IaPd(_IAID, 0, 0, prefixes).encode())
        return tuple(both)

    def _server_id(self) -> Options:
        return ((int(OptionCode.SERVERID), self._server),)

    def _jitter(self) -> float:
        return self._draws.uniform(-0.1, 0.1)


def _leases(options: Options) -> tuple[dict[Prefix, tuple[bool, int]], bool]:
    """What the IAs of a message hold, each with whether it is preferred and its valid lifetime; and whether the server
    knows no binding for one of them."""
    found: dict[Prefix, tuple[bool, int]] = {}
    unbound = False
    for body in every(options, OptionCode.IA_NA):
        na = IaNa.decode(body)
        unbound |= _status(na.options) == StatusCode.NO_BINDING
        for lease in every(na.options, OptionCode.IAADDR):
            address = IaAddress.decode(lease)
            found[Prefix(address.address, _HOST)] = (address.preferred > 0, address.valid)
    for body in every(options, OptionCode.IA_PD):
        pd = IaPd.decode(body)
        unbound |= _status(pd.options) == StatusCode.NO_BINDING
        for lease in every(pd.options, OptionCode.IAPREFIX):
            prefix = IaPrefix.decode(lease)
            found[prefix.prefix] = (prefix.preferred > 0, prefix.valid)
    return found, unbound


def _status(options: Options) -> int:
    body = first(options, OptionCode.STATUS_CODE)
    return StatusCode.SUCCESS if body is None else StatusOption.decode(body).code
