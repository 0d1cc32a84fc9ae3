"""What the drivers do to a real kernel: nothing that is not undone, and no moment without a route."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.rtnl import RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dmm_wire.address import UNSPECIFIED, Prefix, format_address, parse_address, parse_mac
from dmm_wire.router_identity import of_anchor
from relay_maar.core.items import (
    AcceptFrom,
    Dlif,
    Drop,
    Item,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.southbound.api import DriverUnavailable, SouthboundError, SouthboundSettings
from relay_maar.southbound.messages import RTN_UNICAST, all_routes, route_prefix, route_source
from relay_maar.southbound.netlink import Message, Netlink
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Namespace
from tests.maar.southbound.test_contract import (
    ALL,
    AWAY,
    HOST,
    LOCAL,
    NODE,
    OTHER,
    PEER,
    POOL,
    VISITING,
    put,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

RTNLGRP_IPV6_ROUTE = 11


def sysctl(path: str, value: str) -> None:
    (Path("/proc/sys/net/ipv6/conf") / path).write_text(value)


def forwarding_off() -> None:
    sysctl("all/forwarding", "0")


def forwarding_on() -> None:
    sysctl("all/forwarding", "1")


def forwarding_mixed() -> None:
    sysctl("all/forwarding", "0")
    sysctl("core/forwarding", "1")
    sysctl("default/forwarding", "1")


def tunnel_source_set() -> None:
    subprocess.run(["ip", "sr", "tunsrc", "set", "2001:db8:c::1"], check=True)


STATES = (forwarding_off, forwarding_on, forwarding_mixed, tunnel_source_set)


def run_and_kill(settings: SouthboundSettings) -> None:
    """A process that opens and installs everything, and is killed -9."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            driver = Seg6Southbound(settings)
            driver.open()
            put(driver, *ALL)
            os.write(writable, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writable)
    installed = os.read(readable, 1)
    os.close(readable)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert installed == b"x"


@pytest.mark.parametrize("state", STATES)
def test_close_restores_exactly(
    router: Namespace, settings: SouthboundSettings, state: Callable[[], None]
) -> None:
    with router.inside():
        state()
        before = router.snapshot()
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        assert router.snapshot() != before
        driver.close(keep=False)
        assert router.snapshot() == before


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_close_restores_what_a_killed_process_found(
    router: Namespace, settings: SouthboundSettings, state: Callable[[], None], opened: bool
) -> None:
    with router.inside():
        state()
        before = router.snapshot()
        run_and_kill(settings)
        run_and_kill(settings)
        heir = Seg6Southbound(settings)
        if opened:
            heir.open()
            assert heir.dump() == frozenset(ALL)
        heir.close(keep=False)
        assert router.snapshot() == before


def test_the_operators_own_is_left_alone(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        router.ip(f"-6 route add {LOCAL} via 2001:db8:c::9 dev core")
        router.ip(f"-6 route add {AWAY} dev acc0")
        router.ip(f"-6 rule add from {VISITING} lookup 77 pref 100")
        router.ip("-6 neigh add fe80::77 lladdr 02:00:00:00:00:77 dev core nud permanent")
        before = router.snapshot()
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        driver.apply([Drop(item) for item in reversed(ALL)])
        put(driver, *ALL)
        driver.close(keep=False)
        assert router.snapshot() == before


def test_a_changed_configuration_takes_over(
    router: Namespace, settings: SouthboundSettings
) -> None:
    """Leftovers of another endpoint, interface or table are removed, not left in the kernel."""
    with router.inside():
        before = router.snapshot()
        run_and_kill(settings)
        changed = dataclasses.replace(
            settings,
            endpoint=parse_address("2001:db8:f::9"),
            access_interfaces=("acc1",),
            table_base=22000,
        )
        heir = Seg6Southbound(changed)
        heir.open()
        assert heir.dump() == {
            Tunnel(PEER),
            Tunnel(OTHER),
            Dlif("acc1", of_anchor(PEER)),
            Dlif("acc1", of_anchor(OTHER)),
            Neighbour("acc1", NODE, parse_mac("02:00:00:00:00:11")),
            Route(POOL, Unreachable()),
            Route(AWAY, ToPeer(PEER)),
            Route(VISITING, ToNode("acc1", NODE)),
            Route(HOST, ToNode("acc1", NODE)),
        }
        rules = router.ip("-6 rule show")
        assert "2001:db8:f::9" in rules
        assert "2001:db8:f::1 " not in rules
        assert f"{settings.table_base}" not in rules
        heir.close(keep=False)
        assert router.snapshot() == before


def test_a_router_is_there_at_once(router: Namespace, settings: SouthboundSettings) -> None:
    """Nobody is asked first whether the address is free: other gateways have it too, or had it a moment ago, and a node
    that comes does not wait for a second."""
    with router.inside():
        driver = Seg6Southbound(settings)
        devices = {each.device: each.link_local for each in driver.open()}
        put(driver, Dlif("acc1", of_anchor(PEER)))
        devices[f"{list(devices)[1]}d0"] = of_anchor(PEER).link_local
        for device, link_local in devices.items():
            (line,) = router.ip(f"-o -6 addr show dev {device}").splitlines()
            assert f"inet6 {format_address(link_local)}/64 scope link" in line
            assert "tentative" not in line
        driver.close(keep=False)


def test_an_anchor_is_another_router(router: Namespace, settings: SouthboundSettings) -> None:
    """One address of the two changes, then the other one; the new is put before the old is dropped."""
    before = router.snapshot()
    first = of_anchor(PEER)
    second = first._replace(link_local=parse_address("fe80::2"))
    third = second._replace(link_layer=parse_mac("02:00:5e:00:53:02"))

    def shown() -> list[str]:
        lines = router.ip("-o -6 addr show type macvlan").splitlines()
        return [line.split()[3] for line in lines if re.match(r"\d+: maar\d+d", line)]

    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, Dlif("acc1", first))
        driver.apply([Put(Dlif("acc1", second)), Drop(Dlif("acc1", first))])
        assert driver.dump() >= {Dlif("acc1", second)}
        assert Dlif("acc1", first) not in driver.dump()
        assert shown() == ["fe80::2/64"]
        put(driver, Dlif("acc1", third))
        assert driver.dump() & {Dlif("acc1", second), Dlif("acc1", third)} == {Dlif("acc1", third)}
        driver.apply([Drop(Dlif("acc1", third))])
        assert shown() == []
        driver.close(keep=False)
        assert router.snapshot() == before


def test_sources_are_routes_and_not_rules(router: Namespace, settings: SouthboundSettings) -> None:
    """A packet is compared with each rule; so their number has nothing to do with that of nodes or peers."""
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, Tunnel(PEER), Tunnel(OTHER))
        before = router.ip("-6 rule show")
        items = SourceRule(VISITING, PEER), SourceRule(HOST, OTHER), AcceptFrom(PEER)
        put(driver, *items)
        assert router.ip("-6 rule show") == before
        assert [line.split(" dev ")[0] for line in ways(router)] == [
            "2001:db8:f::1 from 2001:db8:f::2 encap seg6local action End.DT6 table main",
            f"default from {VISITING} encap seg6 mode encap.red segs 1 [ 2001:db8:f::2 ]",
            f"unreachable default from {VISITING}",
            "default from 2001:db8:2:2::10 encap seg6 mode encap.red segs 1 [ 2001:db8:f::3 ]",
            "unreachable default from 2001:db8:2:2::10",
        ]
        driver.apply([Drop(item) for item in items])
        assert ways(router) == []
        driver.close(keep=True)


def ways(router: Namespace) -> list[str]:
    """The routes by source."""
    lines = router.ip("-6 route show table all").splitlines()
    return [" ".join(line.split()) for line in lines if " from " in line]


def held(router: Namespace) -> tuple[str, str]:
    """Routes and rules of ours: unlike links, nothing happens to them by itself."""
    return router.ip("-6 route show table all proto 213"), router.ip("-6 rule show")


def test_what_an_earlier_version_left_is_cleared_away(
    router: Namespace, settings: SouthboundSettings
) -> None:
    """It had a rule for each prefix and each peer, and for each peer a table and a note of it; a later one had one rule
    for what comes from the core, too."""
    with router.inside():
        before = router.snapshot()
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        ours = held(router)
        tunnel = "encap seg6 mode encap.red segs 2001:db8:f::2"
        local = "encap seg6local action End.DT6 table main"
        number = "ipproto 41 pref 21301"
        old = (
            "-6 route add unreachable 2001:db8:f::2 table 1296122194 metric 22340 proto 213",
            f"-6 route add default {tunnel} dev core table 21316 metric 128 proto 213",
            "-6 route add unreachable default table 21316 metric 4294967295 proto 213",
            f"-6 rule add from {VISITING} lookup 21316 pref 21304 proto 213",
            "-6 rule add lookup 21302 pref 21304 proto 213",
            f"-6 route add 2001:db8:f::1 {local} dev core table 21300 metric 128 proto 213",
            f"-6 rule add from 2001:db8:f::2 to 2001:db8:f::1 {number} lookup 21300 proto 213",
        )
        for again in (driver.restore, driver.open):
            for command in old:
                router.ip(command)
            assert held(router) != ours
            again()
            assert driver.dump() == frozenset(ALL)
            assert held(router) == ours
        for command in old:
            router.ip(command)
        driver.close(keep=False)
        assert router.snapshot() == before


@pytest.mark.parametrize("lost", ["default", "unreachable default"])
def test_a_source_that_is_not_whole_leads_to_nobody(
    router: Namespace, settings: SouthboundSettings, lost: str
) -> None:
    """It is not taken for what it was, nor forgotten: who wants it puts it again, who does not drops it."""
    nobody = SourceRule(VISITING, UNSPECIFIED)
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        whole = held(router)
        metric = 128 if lost == "default" else 4294967295
        delete = f"-6 route del {lost} from {VISITING} table 21302 metric {metric}"
        router.ip(delete)
        assert driver.restore().items == frozenset(ALL) - {SourceRule(VISITING, PEER)} | {nobody}
        put(driver, SourceRule(VISITING, PEER))
        assert held(router) == whole
        router.ip(delete)
        driver.restore()
        driver.apply([Drop(nobody)])
        assert driver.dump() == frozenset(ALL) - {SourceRule(VISITING, PEER)}
        assert not [line for line in ways(router) if str(VISITING) in line]
        driver.close(keep=True)


def test_without_its_way_a_source_is_refused_and_goes_nowhere(
    router: Namespace, settings: SouthboundSettings
) -> None:
    rule = SourceRule(VISITING, PEER)
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        router.ip("link set core down")
        with pytest.raises(SouthboundError) as error:
            put(driver, Tunnel(PEER), rule)
        assert [change for change, _ in error.value.failures] == [Put(rule)]
        assert ways(router) == [
            f"unreachable default from {VISITING} dev lo table 21302 proto 213 metric 4294967295 pref medium"
        ]
        assert driver.dump() == {Tunnel(PEER), SourceRule(VISITING, UNSPECIFIED)}
        router.ip("link set core up")
        put(driver, rule)
        assert driver.dump() == {Tunnel(PEER), rule}
        driver.close(keep=True)


class Watcher:
    """Polls the kernel while another thread changes it."""

    def __init__(self, poll: Callable[[Netlink], int]) -> None:
        self._netlink = Netlink()
        self._poll = poll
        self._stop = threading.Event()
        self.seen: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.seen.append(self._poll(self._netlink))

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._netlink.close()


class Events:
    """What the kernel announces about its routes or rules, in order."""

    def __init__(self, group: int, kind: Any) -> None:
        self._kind = kind
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self._socket.bind((0, 1 << (group - 1)))
        self._socket.setblocking(False)

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self) -> list[Message]:
        """One message a datagram: that is how the kernel sends them."""
        found: list[Message] = []
        while True:
            try:
                event = self._kind(self._socket.recv(65536))
            except BlockingIOError:
                return found
            event.decode()
            found.append(event)


def routes_to(prefix: Prefix) -> Callable[[Netlink], int]:
    return lambda netlink: sum(
        route_prefix(route) == prefix and route.get_attr("RTA_TABLE") == 254
        for route in netlink.dump(all_routes(213))
    )


def tunnels_from(prefix: Prefix) -> Callable[[Netlink], int]:
    return lambda netlink: sum(
        route_source(route) == prefix and route["type"] == RTN_UNICAST
        for route in netlink.dump(all_routes(213))
    )


def test_replacing_a_route_leaves_no_gap(router: Namespace, settings: SouthboundSettings) -> None:
    targets = (ToPeer(PEER), ToNode("acc0", NODE), Unreachable(), ToPeer(OTHER))
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, Tunnel(PEER), Tunnel(OTHER), Route(LOCAL, Unreachable()))
        with Events(RTNLGRP_IPV6_ROUTE, rtmsg) as events, Watcher(routes_to(LOCAL)) as watcher:
            while len(watcher.seen) < 300:
                put(driver, *(Route(LOCAL, target) for target in targets))
            announced = [event for event in events.read() if route_prefix(event) == LOCAL]
        assert set(watcher.seen) == {1}
        assert len(announced) >= len(targets)
        assert {event["header"]["type"] for event in announced} == {RTM_NEWROUTE}
        driver.close(keep=True)


def test_replacing_a_source_leaves_no_gap(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, Tunnel(PEER), Tunnel(OTHER), SourceRule(VISITING, PEER))
        with (
            Events(RTNLGRP_IPV6_ROUTE, rtmsg) as events,
            Watcher(tunnels_from(VISITING)) as watcher,
        ):
            while len(watcher.seen) < 300:
                put(driver, SourceRule(VISITING, OTHER), SourceRule(VISITING, PEER))
            announced = events.read()
        assert set(watcher.seen) == {1}
        assert len(announced) >= 4
        assert {event["header"]["type"] for event in announced} == {RTM_NEWROUTE}
        assert driver.dump() == {Tunnel(PEER), Tunnel(OTHER), SourceRule(VISITING, PEER)}
        driver.close(keep=True)


def test_a_link_failure_is_seen_and_mended(router: Namespace, settings: SouthboundSettings) -> None:
    """The kernel forgets routes through an interface that goes down; what is put again is whole."""
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        router.ip("link set core down")
        router.ip("link set core up")
        lost: set[Item] = {
            AcceptFrom(PEER),
            AcceptFrom(OTHER),
            Route(AWAY, ToPeer(PEER)),
            SourceRule(VISITING, PEER),
            SourceRule(HOST, OTHER),
        }
        nobody = {SourceRule(VISITING, UNSPECIFIED), SourceRule(HOST, UNSPECIFIED)}
        assert driver.dump() == frozenset(ALL) - lost | nobody
        put(driver, *ALL)
        assert driver.dump() == frozenset(ALL)
        driver.close(keep=True)


def test_an_access_interface_that_is_gone(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        router.ip("link del acc1")
        change = Put(Route(LOCAL, ToNode("acc1", NODE)))
        with pytest.raises(SouthboundError) as error:
            driver.apply([change, Put(Route(LOCAL, ToNode("acc0", NODE)))])
        ((failed, reason),) = error.value.failures
        assert failed == change
        assert reason.startswith("ENODEV")
        assert "acc1" in reason
        driver.apply([Drop(Route(LOCAL, ToNode("acc1", NODE)))])
        driver.close(keep=False)


def test_a_kernel_that_does_not_answer(
    router: Namespace, settings: SouthboundSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(self: Netlink, requests: object) -> None:
        raise TimeoutError("timed out")

    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        changes = [Put(item) for item in ALL]
        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "transact", no_answer)
            with pytest.raises(SouthboundError) as error:
                driver.apply(changes)
        assert [change for change, _ in error.value.failures] == changes
        assert driver.dump() == frozenset()
        driver.apply(changes)
        assert driver.dump() == frozenset(ALL)
        driver.close(keep=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"core_interface": "nowhere"}, "core interface nowhere"),
        ({"access_interfaces": ("acc0", "nowhere")}, "access interface nowhere"),
        ({"endpoint": parse_address("2001:db8:c::1")}, "assigned to core"),
        ({"table_base": 40000}, "32766"),
    ],
)
def test_what_cannot_be_opened_says_why(
    router: Namespace, settings: SouthboundSettings, change: dict[str, object], named: str
) -> None:
    with router.inside():
        before = router.snapshot()
        driver = Seg6Southbound(dataclasses.replace(settings, **change))  # type: ignore[arg-type]
        with pytest.raises(DriverUnavailable, match=named) as error:
            driver.open()
        assert "\n" not in str(error.value)
        driver.close(keep=False)
        assert router.snapshot() == before


@pytest.mark.parametrize("down", ["core", "lo"])
def test_a_device_that_is_down(router: Namespace, settings: SouthboundSettings, down: str) -> None:
    with router.inside():
        router.ip(f"link set {down} down")
        driver = Seg6Southbound(settings)
        with pytest.raises(DriverUnavailable, match=r"is not up|ENETDOWN|EINVAL"):
            driver.open()
        driver.close(keep=False)


def test_without_privileges(router: Namespace, settings: SouthboundSettings) -> None:
    readable, writable = os.pipe()
    with router.inside():
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                Seg6Southbound(settings).open()
            except DriverUnavailable as unavailable:
                os.write(writable, str(unavailable).encode())
            finally:
                os._exit(0)
    os.close(writable)
    reason = os.read(readable, 4096).decode()
    os.close(readable)
    os.waitpid(child, 0)
    assert "CAP_NET_ADMIN" in reason


def test_endpoint_is_bound_with_freebind_only(
    router: Namespace, settings: SouthboundSettings
) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        address = (str(socket.inet_ntop(socket.AF_INET6, settings.endpoint)), 0)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            with pytest.raises(OSError, match="assign"):
                udp.bind(address)
            udp.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
            udp.bind(address)
            udp.settimeout(10)
            udp.sendto(b"to myself", udp.getsockname())
            assert udp.recv(100) == b"to myself"
        driver.close(keep=True)


def test_a_crowds_multicast_has_room_on_an_access_link(
    router: Namespace, settings: SouthboundSettings
) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        devices = driver.open()
        for device in devices:
            assert "bcqueuelen 16384 usedbcqueuelen 16384" in router.ip(
                f"-d link show {device.device}"
            )
        driver.close(keep=False)
