"""The mobility domain of the benchmark: who is where, with which addresses and pools.

Three MAARs, and one relay agent that knows nothing of mobility: perfdhcp. Its link is also the one on which direct
clients are. Every pool has 2^32 units, so that none fills and a free one is found at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from dmm_wire.address import parse_address

SERVER = "2001:db8:1::1"
CLIENT = "2001:db8:1::2"
"""perfdhcp's address: the source, link-address and peer-address of its Relay-forwards."""
LINK = "2001:db8:1::/64"
ENDPOINTS = "2001:db8:ff::/64"
"""Where the MAARs' endpoints are, behind the client."""
LIFETIMES = 604_800, 1_209_600
"""Preferred and valid lifetimes, seconds: nothing expires while it is measured."""


@dataclass(frozen=True, slots=True)
class Place:
    """A MAAR, or the plain relay."""

    number: int
    name: str
    endpoint: str
    link: str
    link_address: str

    @property
    def link_pool(self) -> str:
        """For IA_NA."""
        return f"3fff:{self.number}00::/32"

    @property
    def delegated_pool(self) -> str:
        """For IA_PD."""
        return f"3fff:{self.number}80::/32"

    @property
    def source(self) -> bytes:
        """The source of what it relays."""
        return parse_address(self.endpoint)


MAARS = tuple(
    Place(n, f"maar{n}", f"2001:db8:ff::{n}", f"2001:db8:a{n}::/64", f"2001:db8:a{n}::1")
    for n in (1, 2, 3)
)
PLAIN = Place(9, "plain", CLIENT, LINK, CLIENT)

_REGISTRATION = """\
[[maar]]
name = "{place.name}"
endpoint = "{place.endpoint}"
links = ["{place.link}"]

[[maar.pool]]
kind = "link"
prefix = "{place.link_pool}"
preferred = {preferred}
valid = {valid}

[[maar.pool]]
kind = "delegated"
prefix = "{place.delegated_pool}"
preferred = {preferred}
valid = {valid}

"""


def registration() -> str:
    """The domain for `dhcp-cmd maar import`."""
    preferred, valid = LIFETIMES
    return "".join(
        _REGISTRATION.format(place=place, preferred=preferred, valid=valid)
        for place in (*MAARS, PLAIN)
    )
