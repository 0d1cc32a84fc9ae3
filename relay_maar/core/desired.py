"""From sessions to the kernel: the items each one wants, and the ordered changes that bring them
in.

Make before break: what carries packets is put in place before anything is taken away, in the order
in which they depend on each other, and a route that changes its target is replaced, not removed and
added.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import chain

from dmm_wire.address import Prefix
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Dlif,
    Drop,
    Item,
    Key,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.core.session import Role, Session

_ORDER: tuple[type[Item], ...] = (AcceptFrom, Tunnel, Dlif, Neighbour, Route, SourceRule)
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}


def desired(session: Session) -> tuple[Item, ...]:
    """What the kernel has to hold for this mobile node."""
    items: dict[Item, None] = {}
    for entry in session.entries:
        for item in _items(session, entry.role, entry.prefix, entry.anchor):
            items[item] = None
        router, is_served = entry.router, entry.role is Role.SERVED
        if router is not None and is_served and session.attachment is not None:
            items[Dlif(session.attachment.interface, router)] = None
    attachment = session.attachment
    if (
        attachment is not None
        and attachment.link_layer is not None
        and session.having(Role.LOCAL, Role.SERVED)
    ):
        items[Neighbour(attachment.interface, attachment.link_local, attachment.link_layer)] = None
    return tuple(items)


def _items(session: Session, role: Role, prefix: Prefix, anchor: bytes) -> tuple[Item, ...]:
    attachment = session.attachment
    match role:
        case Role.LOCAL if attachment is not None:
            return (Route(prefix, ToNode(attachment.interface, attachment.link_local)),)
        case Role.SERVED if attachment is not None:
            return (
                *through(anchor),
                Route(prefix, ToNode(attachment.interface, attachment.link_local)),
                SourceRule(prefix, anchor),
            )
        case Role.FORWARDED if session.returning:
            return ()
        case Role.ANCHORED | Role.FORWARDED:
            return (*through(session.serving), Route(prefix, ToPeer(session.serving)))
        case _:
            return (Route(prefix, Unreachable()),)


def through(peer: bytes) -> tuple[Item, ...]:
    """What a tunnel takes, both ways. The peer is accepted here too, and not only with the domain:
    the CMD may name it before it has told us the domain, or after it was taken out of it while
    prefixes are still anchored there."""
    return (AcceptFrom(peer), Tunnel(peer))


class Wanted:
    """All items that anybody wants, who wants them, and how far the kernel has come.

    Owners claim sets of items. An item that several claim stays until the last of them lets go:
    tunnels are shared and counted. Where claims of one key differ, the latest counts, and the one
    before comes back when it is withdrawn (a node's prefix that is a whole pool covers the pool's
    Unreachable).
    """

    def __init__(self) -> None:
        self._claims: dict[Key, dict[Hashable, Item]] = {}
        self._owners: dict[Hashable, tuple[Item, ...]] = {}
        self._issued: dict[Key, Item] = {}
        """What the kernel holds once it has answered everything."""
        self._pending: dict[Key, int] = {}
        """The last unanswered token that has a change of this key."""
        self._failed: dict[Key, None] = {}

    def of(self, owner: Hashable) -> tuple[Item, ...]:
        """What this owner wants."""
        return self._owners.get(owner, ())

    def claim(self, owner: Hashable, items: Iterable[Item]) -> tuple[Change, ...]:
        """`owner` wants exactly `items` from now on. Returns the changes this makes."""
        wanted = {item.key: item for item in items}
        before = self._owners.pop(owner, ())
        for item in before:
            if item.key not in wanted:
                claims = self._claims[item.key]
                del claims[owner]
                if not claims:
                    del self._claims[item.key]
        for key, item in wanted.items():
            claims = self._claims.setdefault(key, {})
            if claims.get(owner) != item:
                claims.pop(owner, None)
                claims[owner] = item
        if wanted:
            self._owners[owner] = tuple(wanted.values())
        return self._changes(dict.fromkeys([*(item.key for item in before), *wanted]))

    def reconcile(self, found: Iterable[Item] = ()) -> tuple[Change, ...]:
        """The changes from what there is, `found` if nothing was issued yet, to what is wanted."""
        for item in found:
            self._issued.setdefault(item.key, item)
        return self._changes(dict.fromkeys([*self._issued, *self._claims]))

    def compare(self, found: Iterable[Item]) -> tuple[Change, ...]:
        """The changes from what the kernel holds now, `found`, to what is wanted, without what it
        has not answered for yet. What it refused is among them: now it may take it."""
        held = {item.key: item for item in found}
        known = dict.fromkeys([*held, *self._issued, *self._claims])
        settled = [key for key in known if key not in self._pending]
        for key in settled:
            self._failed.pop(key, None)
        for key in settled:
            self._issued.pop(key, None)
            if key in held:
                self._issued[key] = held[key]
        return self._changes(settled)

    def retry(self) -> tuple[Change, ...]:
        """The changes that the kernel refused, as far as they are still wanted."""
        return self._changes(self._failed)

    def all_dropped(self) -> tuple[Change, ...]:
        """Withdraw every claim. Returns the changes that empty the kernel."""
        self._claims.clear()
        self._owners.clear()
        return self.reconcile()

    def issue(self, token: int, changes: Iterable[Change]) -> None:
        """These changes go to the kernel under `token`."""
        for change in changes:
            key = change.item.key
            self._pending[key] = token
            self._failed.pop(key, None)
            if isinstance(change, Put):
                self._issued[key] = change.item
            else:
                self._issued.pop(key, None)

    def answered(
        self, token: int, changes: Iterable[Change], failures: Mapping[Key, str]
    ) -> list[Change]:
        """The kernel answered `token`. Returns the changes that it refused and that nothing later
        has replaced."""
        refused = []
        for change in changes:
            key = change.item.key
            if self._pending.get(key) != token:
                continue
            del self._pending[key]
            if key in failures:
                refused.append(change)
                self._failed[key] = None
                # Whatever is there now: it takes a Put to be what is wanted, a Drop to be gone.
                self._issued[key] = change.item
        return refused

    def last_token(self, items: Iterable[Item]) -> int | None:
        """The token after whose answer the kernel has said all it will about `items`; None if it
        has already."""
        tokens = [token for item in items if (token := self._pending.get(item.key)) is not None]
        return max(tokens, default=None)

    def tokens(self, items: Iterable[Item]) -> set[int]:
        """The tokens whose answers say something of `items`."""
        pending = self._pending
        return {pending[key] for item in items if (key := item.key) in pending}

    def refused(self, items: Iterable[Item]) -> bool:
        """Whether the kernel refused one of `items`."""
        return any(item.key in self._failed for item in items)

    def owners(self, key: Key) -> tuple[Hashable, ...]:
        """Who claims an item of this key, the latest last."""
        return tuple(self._claims.get(key, ()))

    def overlapped(self, prefix: Prefix, *owners: Hashable) -> bool:
        """Whether somebody other than `owners` wants a route to a prefix that contains this one, is
        it, or is inside it."""
        last = prefix.last
        around = (Prefix.of(prefix.address, length) for length in range(prefix.length))
        routes = (item.prefix for item in self.effective() if isinstance(item, Route))
        inside = (each for each in routes if prefix.address <= each.address <= last)
        return any(
            owner not in owners
            for each in chain(around, inside)
            for owner in self._claims.get(Route(each, Unreachable()).key, ())
        )

    @property
    def failed(self) -> frozenset[Key]:
        """What there is to :meth:`retry`."""
        return frozenset(self._failed)

    def effective(self) -> list[Item]:
        """All items that are wanted."""
        return [self._effective(claims) for claims in self._claims.values()]

    @staticmethod
    def _effective(claims: dict[Hashable, Item]) -> Item:
        return next(reversed(claims.values()))

    def _changes(self, keys: Iterable[Key]) -> tuple[Change, ...]:
        """In the order in which they depend on each other, else in that of `keys`."""
        puts: list[Item] = []
        drops: list[Item] = []
        for key in keys:
            claims = self._claims.get(key)
            issued = self._issued.get(key)
            if claims:
                item = self._effective(claims)
                if item != issued or key in self._failed:
                    puts.append(item)
            elif issued is not None:
                drops.append(issued)
        return (
            *(Put(item) for item in sorted(puts, key=rank)),
            *(Drop(item) for item in sorted(drops, key=rank, reverse=True)),
        )


def rank(item: Item) -> int:
    """Sort key: what others depend on first."""
    return _RANK[type(item)]
