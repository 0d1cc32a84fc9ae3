"""MAARs that register nodes by PBU, for the tests of the CMD: real octets in, PBAs out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from dhcp_cmd.pmip.front import Asked, Front, Late
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    Timestamp,
    decode,
    encode,
)
from dmm_wire.mobility.answers import ALL_ZERO
from dmm_wire.mobility.registration import told
from dmm_wire.timestamp import from_micros
from tests.cmd.core.world import ENTERPRISE, World

CMD = parse_address("2001:db8:ffff::53")
MAC = bytes.fromhex("020000005301")
EUI48 = Identity(IdentitySubtype.EUI48, MAC)
ATTACHED, REFRESH = 4, 5

_Option = TypeVar("_Option", bound=MobilityOption)
_Sub = TypeVar("_Sub", bound=dmm.SubOption)


class Pba:
    """An answer, read back."""

    def __init__(self, message: BindingAcknowledgement) -> None:
        self.message = message
        self.status = message.status
        self.lifetime = message.lifetime
        self.local = [
            o.prefix
            for o in message.options
            if isinstance(o, HomeNetworkPrefix | DelegatedPrefix)
            and o.prefix not in [prefix for _, prefix in self.previous]
        ]

    def all(self, kind: type[_Option]) -> list[_Option]:
        return [o for o in self.message.options if isinstance(o, kind)]

    @property
    def previous(self) -> list[tuple[bytes, Prefix]]:
        """What is anchored elsewhere, with its anchor."""
        return [(o.endpoint, o.prefix) for o in self.all(PreviousMaarOption)]

    @property
    def awaited(self) -> list[tuple[bytes, Prefix]]:
        """What is to be served when its anchor has acknowledged."""
        return [(o.endpoint, o.prefix) for o in self.told(dmm.PreviousMaar) if o.awaited]

    @property
    def clock(self) -> int:
        (timestamp,) = self.all(Timestamp)
        return timestamp.value

    def told(self, kind: type[_Sub]) -> list[_Sub]:
        """What a MAAR of ours makes of it."""
        return [each for each in told(self.message, ENTERPRISE) if isinstance(each, kind)]

    @property
    def generation(self) -> int:
        (visit,) = self.told(dmm.Visit)
        return visit.generation


class Maars:
    """The MAARs of a world as senders of PBUs, all with right clocks unless said otherwise."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcomes: Counter[str] = Counter()
        self.front = Front(world.cmd, lambda peer, said: encode(said, CMD, peer), self.outcomes)
        self.sequence = 0

    def options(
        self,
        *prefixes: Prefix,
        identity: Identity = EUI48,
        link_layer: bytes | None = MAC,
        handoff: int = ATTACHED,
        skew: float = 0.0,
        timestamp: int | None = None,
    ) -> list[MobilityOption]:
        found: list[MobilityOption] = [MobileNodeIdentifier(identity)]
        found += [HomeNetworkPrefix(each) for each in prefixes] or [ALL_ZERO]
        found += [HandoffIndicator(handoff), AccessTechnology(4)]
        if link_layer is not None:
            found.append(LinkLayerIdentifier(link_layer))
        clock = from_micros(self.world.now + int(skew * 1e6))
        return [*found, Timestamp(clock if timestamp is None else timestamp)]

    def update(self, options: Sequence[MobilityOption], lifetime: int = 3600) -> BindingUpdate:
        self.sequence = (self.sequence + 1) & 0xFFFF
        return BindingUpdate(self.sequence, lifetime, tuple(options))

    def send(self, source: bytes, update: BindingUpdate) -> bytes | Late | None:
        read = decode(encode(update, source, CMD), source, CMD)
        assert isinstance(read, BindingUpdate)
        replies = self.front.replies([Asked(source, read)], self.world.now, lambda: self.world.now)
        assert all(to == source for to, _ in replies)
        return replies[0][1] if replies else None

    def asked(self, maar: int, update: BindingUpdate) -> Pba | None:
        endpoint = self.world.domain.maars[maar].endpoint
        answer = self.send(endpoint, update)
        assert answer is None or isinstance(answer, bytes)
        return None if answer is None else self.read(endpoint, answer, update)

    @staticmethod
    def read(endpoint: bytes, answer: bytes, update: BindingUpdate) -> Pba:
        message = decode(answer, CMD, endpoint)
        assert isinstance(message, BindingAcknowledgement)
        assert message.proxy
        assert message.dmm
        assert message.sequence == update.sequence
        return Pba(message)

    def register(
        self,
        maar: int,
        *prefixes: Prefix,
        identity: Identity = EUI48,
        link_layer: bytes | None = MAC,
        handoff: int = ATTACHED,
        skew: float = 0.0,
        timestamp: int | None = None,
        lifetime: int = 3600,
    ) -> Pba:
        options = self.options(
            *prefixes,
            identity=identity,
            link_layer=link_layer,
            handoff=handoff,
            skew=skew,
            timestamp=timestamp,
        )
        answer = self.asked(maar, self.update(options, lifetime))
        assert answer is not None
        return answer

    def leave(
        self, maar: int, identity: Identity = EUI48, link_layer: bytes | None = MAC
    ) -> Pba | None:
        options = self.options(identity=identity, link_layer=link_layer)
        return self.asked(maar, self.update(options, 0))
