"""What no driver does, whatever its kernel says: the part of the contract that all of them share."""

from __future__ import annotations

from collections.abc import Container, Mapping

from dmm_wire.address import format_address
from relay_maar.core.items import (
    Change,
    Dlif,
    Item,
    Key,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
)


class Impossible(Exception):
    """A change that is not even tried; the text says why, errno name first."""


def check(
    change: Change, items: Mapping[Key, Item], interfaces: Container[str], endpoint: bytes
) -> None:
    """Whether `change` makes sense on top of `items` at the MAAR with that tunnel `endpoint`.

    A tunnel is put before what uses it and dropped after it; access interfaces are configured ones.
    Raises Impossible.
    """
    item = change.item
    if isinstance(change, Put):
        interface, peer = _interface(item), _peer(item)
        if interface is not None and interface not in interfaces:
            raise Impossible(f"ENODEV: there is no access interface {interface}")
        if peer is not None and Tunnel(peer).key not in items:
            raise Impossible(f"ENOENT: no tunnel to {format_address(peer)}")
        if item == Tunnel(endpoint):
            raise Impossible("EINVAL: a tunnel to our own endpoint would be a loop")
    elif isinstance(item, Tunnel):
        users = [user for user in items.values() if _peer(user) == item.peer]
        if users:
            user, prefix = users[0].key[:2]
            raise Impossible(
                f"EBUSY: the tunnel to {format_address(item.peer)} carries the {user} of {prefix}"
            )


def _interface(item: Item) -> str | None:
    match item:
        case Route(target=ToNode(interface)) | Neighbour(interface) | Dlif(interface):
            return interface
        case _:
            return None


def _peer(item: Item) -> bytes | None:
    match item:
        case Route(target=ToPeer(endpoint)):
            return endpoint
        case SourceRule():
            return item.peer
        case _:
            return None
