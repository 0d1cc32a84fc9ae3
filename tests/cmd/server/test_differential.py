"""`dhcp-cmd serve` against dhcpkit's chain with our plugin: equal answers, equal rows in the database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dhcp_cmd.server.plan import Plan
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import RelayMessage, first, parse
from tests.cmd.server import generated as g
from tests.cmd.server import hosts as h
from tests.cmd.server.differences import DIFFERENCES, Difference
from tests.cmd.store.domain import T0

SECTIONS = """
<subnet 2001:db8:aaaa:1::/64>
    <recursive-name-servers>
        address 2001:db8::5353
    </recursive-name-servers>
    <ignore-request>
        message-type information-request
    </ignore-request>
</subnet>
<subnet-group>
    prefix 2001:db8:aaaa:2::/64
    prefix 2001:db8:aaaa:3::/64
    <sol-max-rt>
        limit 4000
    </sol-max-rt>
    <server-unicast>
        address 2001:db8:ffff::53
    </server-unicast>
</subnet-group>
<marked-with relays>
    <copy-subscriber-id/>
</marked-with>
<elapsed-time>
    more-than 10s
    <aftr-name>
        fqdn aftr.example.org
    </aftr-name>
</elapsed-time>
<recursive-name-servers>
    address 2001:db8::53
    address 2001:db8::54
</recursive-name-servers>
<domain-search-list>
    domain-name example.org
</domain-search-list>
<ntp-servers>
    server-fqdn time.example.org
    server-address 2001:db8::123
</ntp-servers>
<sntp-servers>
    address 2001:db8::123
</sntp-servers>
<sip-server-names>
    domain-name sip.example.org
</sip-server-names>
<sip-server-addresses>
    address 2001:db8::5060
</sip-server-addresses>
<sol-max-rt>
    limit 3600
</sol-max-rt>
<inf-max-rt>
    limit 3600
    always-send yes
</inf-max-rt>
<preference>
    level 255
</preference>
<map-e>
    <map-rule>
        ipv6-prefix 2001:db8:f000::/36
        ipv4-prefix 192.0.2.0/24
        contiguous-ports 64
        sharing-ratio 16
        forwarding-mapping yes
    </map-rule>
    br-address 2001:db8::1
</map-e>
<copy-remote-id/>
"""


@pytest.fixture(scope="module")
def configured() -> Iterator[tuple[Path, Plan]]:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        h.prepare_worker(patch)
        path = h.write_configuration(Path(name), SECTIONS)
        yield path, h.plan_of(path)


def canonical(answer: bytes | None) -> object:
    """An answer with the options of each message sorted, so that their order does not matter."""
    if answer is None:
        return None
    message = parse(answer)
    if not isinstance(message, RelayMessage):
        return message.type, message.transaction_id, sorted(message.options)
    inner = first(message.options, OptionCode.RELAY_MSG)
    outer = sorted(option for option in message.options if option[0] != OptionCode.RELAY_MSG)
    return (
        (message.type, message.hop_count, message.link_address, message.peer_address),
        outer,
        canonical(inner),
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=g.batches)
def test_both_hosts_answer_alike(
    configured: tuple[Path, Plan], batches: list[list[g.Step]]
) -> None:
    path, plan = configured
    nodes = g.Nodes()
    with tempfile.TemporaryDirectory() as name:
        fast, plugin = h.two_hosts(Path(name), path, plan, T0)
        try:
            for batch in batches:
                fast.clock.now += sum(step.after for step in batch) * g.SECOND
                kept = []
                for step in batch:
                    arrival = nodes.message(step)
                    if not any(each.applies(arrival) for each in DIFFERENCES):
                        kept.append((step, arrival))
                arrivals = [arrival for _, arrival in kept]
                answers = fast.answer(arrivals)
                for (step, arrival), ours, theirs in zip(
                    kept, answers, plugin.answer(arrivals), strict=True
                ):
                    assert canonical(ours) == canonical(theirs), h.describe([arrival])
                    if ours is not None:
                        nodes.learn(step.node, ours)
            assert h.rows(fast.store) == h.rows(plugin.store)
        finally:
            fast.store.close()
            plugin.store.close()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: d.name)
def test_what_remains_different(
    configured: tuple[Path, Plan], difference: Difference, tmp_path: Path
) -> None:
    """Each line of the list is true, so that it goes when it is not any more."""
    path, plan = configured
    fast, plugin = h.two_hosts(tmp_path, path, plan, T0)
    try:
        ours, theirs = difference.example(fast.answer), difference.example(plugin.answer)
        assert [*map(canonical, ours)] != [*map(canonical, theirs)] or (
            h.rows(fast.store) != h.rows(plugin.store)
        )
    finally:
        fast.store.close()
        plugin.store.close()
