"""The operator's rules on a message: conditions (dhcpkit's filters) and static options (dhcpkit's option handlers)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import encode_options

_SOLICIT: Final = int(MessageType.SOLICIT)
_ADVERTISE: Final = int(MessageType.ADVERTISE)
_REPLY: Final = int(MessageType.REPLY)


class Facts(NamedTuple):
    """What conditions look at. `elapsed` is the client's Elapsed Time in hundredths of a second, None: not told."""

    link_address: bytes
    marks: frozenset[str]
    elapsed: int | None


@dataclass(frozen=True, slots=True)
class OnLink:
    """The link-address is in one of `prefixes`."""

    prefixes: tuple[Prefix, ...]

    def holds(self, facts: Facts) -> bool:
        """Whether it is so."""
        return any(prefix.contains(facts.link_address) for prefix in self.prefixes)


@dataclass(frozen=True, slots=True)
class Marked:
    """The listener has this mark."""

    mark: str

    def holds(self, facts: Facts) -> bool:
        """Whether it is so."""
        return self.mark in facts.marks


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The client has been trying for more than `above` and less than `below` hundredths of a second."""

    above: int | None
    below: int | None

    def holds(self, facts: Facts) -> bool:
        """Whether it is so; not where the client does not tell."""
        if facts.elapsed is None:
            return False
        if self.above is not None and facts.elapsed <= self.above:
            return False
        return self.below is None or facts.elapsed < self.below


Condition: TypeAlias = OnLink | Marked | Elapsed


def hold(needed: Sequence[int], holding: Sequence[bool]) -> bool:
    """Whether all conditions `needed` (indices) hold."""
    return all(holding[index] for index in needed)


@dataclass(frozen=True, slots=True)
class StaticOption:
    """An option that the operator adds to answers.

    Its data are `items`, one after the other. It is added to messages of the types `messages`, where all `conditions`
    (indices) hold and, unless `always`, the client asks for `code` or has no Option Request option. Where an option of
    that code is there already, `replaces` says that this one goes in its stead, `unites` that the items of both go
    into one; with neither, the first one stays. `late` options come after the CMD's decision: the message they go
    into is the one sent. An earlier one goes into an Advertise where a Solicit came, and stays in it when the
    Advertise becomes a Reply.
    """

    code: int
    items: tuple[bytes, ...]
    messages: frozenset[int]
    conditions: tuple[int, ...] = ()
    always: bool = False
    replaces: bool = False
    unites: bool = False
    late: bool = False


class StaticOptions:
    """The static options of answers, encoded."""

    def __init__(self, options: Iterable[StaticOption]) -> None:
        self._options = tuple(options)
        self._codes = frozenset(option.code for option in self._options)
        self._requested = lru_cache(maxsize=1024)(self._read_option_request)
        # Few distinct answers for very many messages.
        self._encoded = lru_cache(maxsize=4096)(self._encode)

    def encoded(
        self, request: int, reply: int, option_request: bytes | None, holding: tuple[bool, ...]
    ) -> bytes:
        """The options for an answer of type `reply` to a message of type `request`.

        `option_request` is the data of the client's Option Request option, None: it has none. `holding` says for each
        condition whether it holds.
        """
        if not self._options:
            return b""
        requested = None if option_request is None else self._requested(option_request)
        return self._encoded(request == _SOLICIT, reply, requested, holding)

    def _read_option_request(self, body: bytes) -> frozenset[int]:
        codes = (int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body) - 1, 2))
        return self._codes.intersection(codes)

    def _encode(
        self, solicit: bool, reply: int, requested: frozenset[int] | None, holding: tuple[bool, ...]
    ) -> bytes:
        found: dict[int, StaticOption] = {}
        for option in self._options:
            code = option.code
            message = reply if option.late else (_ADVERTISE if solicit else _REPLY)
            if message not in option.messages or not hold(option.conditions, holding):
                continue
            if not (option.always or requested is None or code in requested):
                continue
            before = found.get(code)
            if before is None or option.replaces:
                found[code] = option
            elif option.unites:
                found[code] = replace(
                    before, items=tuple(dict.fromkeys((*before.items, *option.items)))
                )
        return encode_options(
            tuple((option.code, b"".join(option.items)) for option in found.values())
        )
