"""Two `dhcp-cmd serve` on one PostgreSQL: what one promised, the other keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import Relay
from tests.cmd.server.serving import a_database, configured, node, serving, wide

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres")]


def test_the_other_one_knows_the_lease(state: Path, maar1: Relay) -> None:
    first, second = state / "first", state / "second"
    for each in (first, second):
        each.mkdir(mode=0o755)
    with a_database("postgresql", state, [wide()]) as url:
        with serving(configured(first, url)):
            promised = unwrap(maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))).client
        with serving(configured(second, url)):
            again = unwrap(maar1.ask(node(1, m.ia_pd(), kind=MessageType.REBIND))).client
    assert m.leases(promised)
    assert m.leases(again) == m.leases(promised)
