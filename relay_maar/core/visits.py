"""What the CMD says of a visit: whether it is news, and which prefixes the node has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import INFINITY
from relay_maar.core.binding_updates import is_unicast
from relay_maar.core.session import MAX_PREFIXES, Named, Session


def is_stale(visit: dmm.Visit, session: Session) -> bool:
    """Whether a later visit is known. Of a visit elsewhere, which a PBU told us, the generation is
    not ours."""
    if session.here:
        return visit.generation < session.generation
    return visit.generation <= session.generation


def full_set(
    suboptions: Iterable[dmm.SubOption], endpoint: bytes, counters: Counter[str]
) -> list[Named]:
    """The prefixes that the CMD names for a node at `endpoint`, ours, without those that have ended
    (lifetime 0) or cannot be routed; the latter are counted."""
    found: dict[Prefix, Named] = {}
    for each in suboptions:
        if not isinstance(each, dmm.AnchoredPrefix | dmm.PreviousMaar) or not each.valid:
            continue
        anchor = each.endpoint if isinstance(each, dmm.PreviousMaar) else endpoint
        if not _routable(each.prefix) or not is_unicast(anchor):
            counters["visit.bad-prefix"] += 1
        elif len(found) == MAX_PREFIXES:
            counters["visit.prefix-limit"] += 1
        else:
            lifetime = math.inf if each.valid == INFINITY else float(each.valid)
            found.setdefault(each.prefix, Named(each.prefix, anchor, lifetime, each.delegated))
    return list(found.values())


def _routable(prefix: Prefix) -> bool:
    """Whether a node could have this prefix: a unicast one, and not half of the Internet."""
    return prefix.length >= 16 and is_unicast(prefix.address)
