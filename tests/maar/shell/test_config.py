"""Every fault of the operator's file is one line that names the file, the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmm_wire.address import Prefix, parse_address
from dmm_wire.router_identity import FIXED, RouterIdentity, of_anchor
from relay_maar.config import ConfigError, load, parse

GOOD = """\
name = "maar1"
endpoint = "2001:db8:ff::1"
core-interface = "core0"
servers = ["2001:db8:c::1"]
pools = ["2001:db8:1000::/40", "2001:db8:2000::/40"]

[[access]]
interface = "access0"
link-address = "2001:db8:1::1"

[[access]]
interface = "access1"
link-address = "2001:db8:2::1"
interface-id = "second floor"
relays-below = true
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "maar.toml")
    return caught.value.lines


def test_a_good_file_gives_the_core_and_the_driver_what_they_need() -> None:
    config = parse(GOOD + "max-nodes = 100\n", "maar.toml")
    agent = config.agent(
        {"access0": b"\x02" * 6, "access1": b"\x04" * 6}, {"access0": 1460, "access1": 1400}
    )
    assert agent.endpoint == parse_address("2001:db8:ff::1")
    assert agent.relay_id == bytes.fromhex("000200007ed9") + b"maar1"
    assert [link.interface_id for link in agent.access] == [b"access0", b"second floor"]
    assert [link.relays_below for link in agent.access] == [False, True]
    assert agent.access[1].link_layer == b"\x04" * 6
    assert [link.mtu for link in agent.access] == [1460, 1400]
    assert [link.max_nodes for link in agent.access] == [65536, 100]
    southbound = config.southbound()
    assert southbound.access_interfaces == ("access0", "access1")
    assert southbound.pools == (
        Prefix.parse("2001:db8:1000::/40"),
        Prefix.parse("2001:db8:2000::/40"),
    )


def test_a_relay_id_of_ones_own_replaces_the_derived_one() -> None:
    config = parse('relay-id = "00:03:00:01:02:00:00:00:00:01"\n' + GOOD, "maar.toml")
    relay_id = config.agent(
        {"access0": bytes(6), "access1": bytes(6)}, {"access0": 1460, "access1": 1460}
    ).relay_id
    assert relay_id == bytes.fromhex("00030001020000000001")


FAULTS = [
    (
        'name = "maar1"',
        'name = "maar1"\ndriver = "ip6tnl"',
        "maar.toml:2: driver: no driver 'ip6tnl': there are auto, seg6, fake",
    ),
    (
        '"2001:db8:ff::1"',
        '"fe80::1"',
        "maar.toml:2: endpoint: must be a global unicast address, not fe80::1",
    ),
    ('"2001:db8:ff::1"', "1", "maar.toml:2: endpoint: must be an IPv6 address in quotes"),
    (
        '"core0"',
        '"0123456789abcdef"',
        "maar.toml:3: core-interface: not an interface name: '0123456789abcdef'",
    ),
    (
        '["2001:db8:c::1"]',
        "[]",
        "maar.toml:4: servers: at least one is needed",
    ),
    ('["2001:db8:c::1"]', '["x"]', "maar.toml:4: servers[0]: not an IPv6 address: 'x'"),
    (
        '["2001:db8:c::1"]',
        '["ff02::1:2"]',
        "maar.toml:4: servers[0]: must be a global unicast address, not ff02::1:2",
    ),
    (
        '"2001:db8:1000::/40"',
        '"2001:db8:1000::1/40"',
        "maar.toml:5: pools[0]: not an IPv6 prefix: 2001:db8:1000::1/40 has host bits set",
    ),
    (
        '"2001:db8:2000::/40"',
        '"2001:db8:1000::/48"',
        "maar.toml: pools: 2001:db8:1000::/48 overlaps 2001:db8:1000::/40",
    ),
    (
        '"2001:db8:2000::/40"',
        '"2001:db8:ff::/48"',
        "maar.toml: pools: 2001:db8:ff::/48 contains the endpoint 2001:db8:ff::1",
    ),
    (
        '"2001:db8:2::1"',
        '"::1"',
        "maar.toml:13: access[1].link-address: must be a global unicast address, not ::1",
    ),
    ('link-address = "2001:db8:1::1"\n', "", "maar.toml:7: access[0].link-address: is missing"),
    (
        "relays-below = true",
        "relays-bellow = true",
        "maar.toml:15: access[1].relays-bellow: is not a key of this file",
    ),
    ('"access1"', '"access0"', "maar.toml: access: the interface 'access0' is used twice"),
    ('name = "maar1"\n', "", "maar.toml: name: is missing"),
    (
        'name = "maar1"',
        'name = "maar1"\nmode = "proxy"',
        "maar.toml:2: mode: is not a key of this file",
    ),
    (
        'name = "maar1"',
        'name = "maar1"\ncmds = ["ff02::1"]',
        "maar.toml:2: cmds[0]: must be a global unicast address, not ff02::1",
    ),
    (
        'name = "maar1"',
        'name = "maar1"\nrouter-link-layer = "xy"',
        "maar.toml:2: router-link-layer: not a link-layer address: 'xy'",
    ),
    (
        'name = "maar1"',
        'name = "maar1"\nrouter-link-local = "fe80::1"',
        'maar.toml: router-link-local, router-link-layer: only with router-identity = "dlif"',
    ),
    (
        'name = "maar1"',
        'name = "maar1"\nrouter-identity = "dlif"\nrouter-link-local = "ff02::1"',
        "maar.toml: router-link-local: not a link-local address that a router can have",
    ),
    (
        'name = "maar1"',
        'name = "maar1"\nrouter-identity = "dlif"\nrouter-link-layer = "01:00:5e:00:53:01"',
        "maar.toml: router-link-layer: not an individual link-layer address of 6 octets",
    ),
    (
        'name = "maar1"',
        'name = "maar1"\nrelay-id = "xy"',
        "maar.toml:2: relay-id: not hexadecimal: 'xy'",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), FAULTS)
def test_a_fault_is_one_line(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert faults(GOOD.replace(old, new)) == [expected]


def test_as_which_router_it_is_shown() -> None:
    links = {"access0": bytes(6), "access1": bytes(6)}, {"access0": 1460, "access1": 1460}
    for keys, identity in (
        ("", None),
        ('router-identity = "dlif"\n', of_anchor(parse_address("2001:db8:ff::1"))),
        (
            'router-identity = "dlif"\nrouter-link-layer = "02:00:5e:00:53:01"\n',
            RouterIdentity(parse_address("fe80::5eff:fe00:5301"), bytes.fromhex("02005e005301")),
        ),
    ):
        config = parse(keys + GOOD, "maar.toml")
        assert config.agent(*links).identity == identity
        southbound = config.southbound()
        assert (southbound.router, southbound.dlif) == (identity or FIXED, identity is not None)


def test_who_registers_nodes_may_relay_dhcpv6_too() -> None:
    pmip = 'signalling = "pmip"\ncmds = ["2001:db8:c::1"]\n' + GOOD
    layers, mtus = {"access0": bytes(6), "access1": bytes(6)}, {"access0": 1460, "access1": 1460}
    for text, registers, autonomous in (
        (GOOD, False, False),
        (pmip, True, False),
        (pmip.replace('servers = ["2001:db8:c::1"]\n', ""), True, True),
    ):
        agent = parse(text, "maar.toml").agent(layers, mtus)
        assert (agent.registers, agent.router.autonomous) == (registers, autonomous)


def test_every_fault_is_told_at_once() -> None:
    lines = faults(GOOD.replace('"core0"', "7").replace('"2001:db8:1::1"', '"x"'))
    assert [line.split(": ")[1] for line in lines] == ["core-interface", "access[0].link-address"]


def test_router_advertisement_ranges_are_those_of_rfc_4861() -> None:
    table = "\n[router-advertisements]\nmin-interval = 50\nmax-interval = 60\n"
    (line,) = faults(GOOD + table)
    assert line.startswith("maar.toml:17: router-advertisements: min-interval must be at most")


def test_what_is_not_toml_is_told_with_its_place() -> None:
    (line,) = faults("name = \n")
    assert line.startswith("maar.toml: not TOML: Invalid value (at line 1")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml")
    assert caught.value.lines == [f"{tmp_path}/none.toml: No such file or directory"]


def test_out_of_what_prefixes_are_chosen() -> None:
    pmip = GOOD.replace(
        'servers = ["2001:db8:c::1"]', 'signalling = "pmip"\ncmds = ["2001:db8:c::1"]'
    )
    layers, mtus = {"access0": bytes(6), "access1": bytes(6)}, {"access0": 1460, "access1": 1460}
    assert parse(pmip, "maar.toml").agent(layers, mtus).own_prefixes is None
    for pool in ("2001:db8:1000::/40", "2001:db8:1080::/48", "2001:db8:2000::/64"):
        config = parse(f'own-prefixes = "{pool}"\n{pmip}', "maar.toml")
        assert config.agent(layers, mtus).own_prefixes == Prefix.parse(pool)
    for pool in ("2001:db8:3000::/40", "2001:db8:1000::/39", "2001:db8:1000::/72"):
        (line,) = faults(f'own-prefixes = "{pool}"\n{pmip}')
        assert line == (
            f"maar.toml: own-prefixes: {pool} has to be one of the pools, or a part of one, of /64s"
        )
    (line,) = faults(f'own-prefixes = "2001:db8:1000::/40"\n{GOOD}')
    assert line == 'maar.toml: own-prefixes: only with signalling = "pmip"'
