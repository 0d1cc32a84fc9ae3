"""The same node and the same MAARs, with either way to ask the CMD."""

from __future__ import annotations

from typing import Final

from dmm_wire.dmm import SignallingMode
from relay_maar.core.settings import AttachSettings
from tests.maar.core.attach_world import AttachWorld
from tests.maar.core.noticing import Noticing
from tests.maar.core.pmip_world import PmipWorld

KINDS: Final = ("dhcp", "pmip")


def noticing(
    kind: str,
    *,
    attach: AttachSettings | None = None,
    flap_interval: int = 2,
    mode: SignallingMode = SignallingMode.PROXY,
) -> Noticing:
    """Three MAARs that ask their CMD by DHCPv6 or register with it by PMIPv6, in `mode`."""
    if kind == "dhcp":
        return AttachWorld(flap_interval=flap_interval, attach=attach)
    own = {} if attach is None else {number: {"attach": attach} for number in (1, 2, 3)}
    return PmipWorld(mode, 3, own=own, flap_interval=flap_interval)
