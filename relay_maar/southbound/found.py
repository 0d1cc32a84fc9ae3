"""What `open` found and changed outside of our own routes, rules and devices, remembered in the kernel.

The notes are unreachable routes of a table that no rule looks up: metric says what is noted, the /128
destination is the note. So they outlive a killed process, are gone with the namespace or a reboot
exactly when what they describe is gone, and the dump that finds everything of ours finds them too.
A note is written before the change it is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from socket import if_indextoname, if_nameindex

from dmm_wire.address import Prefix
from relay_maar.southbound.api import DriverUnavailable
from relay_maar.southbound.layout import NOTES_TABLE, Layout
from relay_maar.southbound.messages import drop_route, packed, route_source
from relay_maar.southbound.netlink import Message, Netlink, Refused, Request

_CONF = Path("/proc/sys/net/ipv6/conf")


class Note(IntEnum):
    """The kinds of notes."""

    FORWARDING_WAS_OFF = 1
    FORWARDED_NEVERTHELESS = 2
    """With forwarding off: this device (its index; 0 is the default for new ones) had it on."""
    TUNNEL_SOURCE = 3
    """The namespace's tunnel source was this address."""
    PROBE = 4
    """No note: what a probe of the kernel left when it was killed."""
    TUNNEL = 5
    """There is a tunnel to this peer. It has nothing else in the kernel but the routes that use it."""


class Notebook:
    """The notes of this namespace."""

    def __init__(self, netlink: Netlink, layout: Layout) -> None:
        self._netlink = netlink
        self._layout = layout
        self._notes: set[tuple[int, bytes]] = set()

    def load(self, routes: Iterable[Message]) -> list[Message]:
        """Take the notes out of a dump of our routes; returns the other routes."""
        others = []
        self._notes.clear()
        for route in routes:
            if route.get_attr("RTA_TABLE") == NOTES_TABLE and route_source(route) is None:
                self._notes.add((route.get_attr("RTA_PRIORITY"), packed(route, "RTA_DST")))
            else:
                others.append(route)
        return others

    def read(self, note: Note) -> list[bytes]:
        """The contents of the notes of a kind (16 octets each)."""
        return [payload for metric, payload in self._notes if metric == note]

    def write(self, note: Note, payload: bytes) -> None:
        """Raises Refused."""
        self._netlink.request(self.writing(note, payload))
        self._notes.add((note, payload))

    def writing(self, metric: int, payload: bytes) -> Request:
        """The request that writes a note, to go into a batch."""
        return self._layout.unreachable(Prefix(payload, 128), NOTES_TABLE, metric)

    def erasing_all(self) -> list[Request]:
        """The requests that erase every note."""
        return [self.erasing(metric, payload) for metric, payload in self._notes]

    def erasing_unknown(self) -> list[Request]:
        """The requests that erase what another version has noted."""
        known = frozenset(Note)
        return [self.erasing(*note) for note in self._notes if note[0] not in known]

    def erasing(self, metric: int, payload: bytes) -> Request:
        """The request that erases a note."""
        return drop_route(Prefix(payload, 128), NOTES_TABLE, metric, self._layout.protocol)


def turn_on_forwarding(notebook: Notebook) -> None:
    """IPv6 forwarding for the namespace, noting what was there. Raises DriverUnavailable."""
    if _read("all"):
        return
    try:
        devices = {0: "default"} | dict(if_nameindex())
        for index, device in devices.items():
            # Ours are made with forwarding on and go with their device: no harm in noting them.
            if _read(device):
                notebook.write(Note.FORWARDED_NEVERTHELESS, index.to_bytes(16, "big"))
        notebook.write(Note.FORWARDING_WAS_OFF, bytes(16))
    except Refused as refused:
        raise DriverUnavailable(f"noting the forwarding state: {refused.reason}") from None
    _write("all", on=True)


def restore_forwarding(notebook: Notebook) -> None:
    """Undo `turn_on_forwarding`, whichever process did it. Raises DriverUnavailable."""
    if not notebook.read(Note.FORWARDING_WAS_OFF):
        return
    _write("all", on=False)
    for payload in notebook.read(Note.FORWARDED_NEVERTHELESS):
        index = int.from_bytes(payload, "big")
        try:
            device = if_indextoname(index) if index else "default"
        except OSError:
            continue
        _write(device, on=True)


def _read(device: str) -> bool:
    try:
        return (_CONF / device / "forwarding").read_text().strip() != "0"
    except FileNotFoundError:
        return False


def _write(device: str, *, on: bool) -> None:
    try:
        (_CONF / device / "forwarding").write_text("1" if on else "0")
    except OSError as error:
        raise DriverUnavailable(
            f"net.ipv6.conf.{device}.forwarding={int(on)}: {error.strerror}"
        ) from None
