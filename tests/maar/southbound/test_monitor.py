"""What the driver hears of others' work in the kernel, what it does not, and what it puts right."""

from __future__ import annotations

import re
import select
import socket
import subprocess
from collections.abc import Iterator

import pytest

from lab import netns
from relay_maar.core.items import Dlif, Drop, Put, Route, SourceRule, ToNode
from relay_maar.southbound.api import DriverUnavailable, SouthboundSettings
from relay_maar.southbound.netlink import Netlink
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Namespace
from tests.maar.southbound.test_contract import ALL, HOST, LOCAL, NODE, PEER, VISITING, put

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]


@pytest.fixture
def driver(router: Namespace, settings: SouthboundSettings) -> Iterator[Seg6Southbound]:
    """One that has everything in the kernel and watches it."""
    with router.inside():
        made = Seg6Southbound(settings)
        made.open()
        made.watch()
        put(made, *ALL)
        # Of a new device the kernel has more to announce, some time later: that it is up.
        devices = 2 + sum(isinstance(item, Dlif) for item in ALL)
        netns.wait_for(
            lambda: router.ip("link show type macvlan").count(" state UP ") == devices,
            timeout=10,
            what="the devices to be up",
        )
        yield made
        made.close(keep=True)


def heard(driver: Seg6Southbound) -> bool:
    """Whether there is anything to read at all: notifications are there when the change is made."""
    return bool(select.select([driver.watch()], [], [], 0)[0])


@pytest.mark.parametrize(
    "command",
    [
        f"-6 route del {LOCAL} proto 213",
        "-6 route flush table 21300",
        "-6 route flush table 21301",
        "-6 route flush proto 213",
        f"-6 route del default from {VISITING} table 21302 metric 128",
        f"-6 route del unreachable default from {VISITING} table 21302 metric 4294967295",
        "-6 rule del priority 21301",
        "-6 rule del priority 21305",
        "-6 rule del priority 21303",
        "link set core down",
        "link set core name core9",
        "link set lo down",
        "link del acc1",
        "link add acc7 type veth peer name maar99",
    ],
)
def test_what_is_noticed(driver: Seg6Southbound, router: Namespace, command: str) -> None:
    driver.disturbed()
    router.ip(command)
    assert heard(driver)
    assert driver.disturbed()
    assert not heard(driver)
    assert not driver.disturbed()


def test_a_busy_routing_daemon_does_not_wake_us(
    driver: Seg6Southbound, router: Namespace, settings: SouthboundSettings
) -> None:
    """Its routes do not even come to our socket; nor does what we ask for ourselves."""
    driver.disturbed()
    lines = [f"2001:db8:b:{number:x}::/64 dev core proto bird" for number in range(1000)]
    for verb in ("add", "del"):
        batch = "".join(f"route {verb} {line}\n" for line in lines)
        command = ["ip", "-6", "-n", router.name, "-batch", "-"]
        subprocess.run(command, input=batch, text=True, check=True)
    router.ip(f"-6 route add {LOCAL} dev core metric 2000")
    router.ip("-6 rule add from 2001:db8:77::/48 lookup 77 pref 100")
    put(driver, Route(LOCAL, ToNode("acc1", NODE)), SourceRule(HOST, PEER))
    driver.apply([Drop(item) for item in reversed(ALL) if not isinstance(item, Dlif)])
    assert not heard(driver)


def test_other_anchors_devices(driver: Seg6Southbound, router: Namespace) -> None:
    """What we do with them is announced like what others do. Only a loss counts that was not ours."""
    driver.disturbed()
    (item,) = [each for each in ALL if isinstance(each, Dlif) and each.interface == "acc0"]
    driver.apply([Drop(item), Put(item), Drop(item), Put(item)])
    assert heard(driver)
    assert not driver.disturbed()
    (name,) = re.findall(r"(maar\d+d\d+)@acc0", router.ip("link show"))
    router.ip(f"link del {name}")
    assert driver.disturbed()
    assert item not in driver.restore().items
    put(driver, item)
    assert driver.restore().items == frozenset(ALL)
    assert not driver.disturbed()
    # One that does not work is as good as none.
    router.ip(f"link set {name} down")
    assert item not in driver.restore().items


def test_links_of_others_are_no_business_of_ours(driver: Seg6Southbound, router: Namespace) -> None:
    driver.disturbed()
    router.ip("link add other0 type veth peer name other1")
    router.ip("link set other0 up")
    router.ip("link add br0 type bridge")
    router.ip("link set other0 master br0")
    router.ip("link del other0")
    assert heard(driver)
    assert not driver.disturbed()


def test_a_link_is_noticed_for_what_concerns_us_only(
    driver: Seg6Southbound, router: Namespace
) -> None:
    router.ip("link set core alias uplink")
    router.ip("link set core mtu 1400")
    # As a port of a bridge it is announced as gone from there.
    router.ip("link add br0 type bridge")
    router.ip("link set core master br0")
    router.ip("link set core nomaster")
    assert heard(driver)
    assert not driver.disturbed()


def test_what_was_not_read_in_time_counts_as_a_disturbance(
    driver: Seg6Southbound, router: Namespace
) -> None:
    driver.disturbed()
    lines = "".join(
        f"link {verb} other0 {rest}\n"
        for _ in range(400)
        for verb, rest in (("add", "type veth peer name other1"), ("del", ""))
    )
    command = ["ip", "-n", router.name, "-batch", "-"]
    subprocess.run(command, input=lines, text=True, check=True)
    while heard(driver):
        if driver.disturbed():
            return
    pytest.fail("none of the notifications was lost: the test needs more of them")


def test_what_is_right_is_not_touched(driver: Seg6Southbound, router: Namespace) -> None:
    """Nobody hears of an audit that finds nothing."""
    # NETLINK_ROUTE; groups of links, neighbours, IPv6 addresses, routes and rules.
    groups = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 10 | 1 << 18
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as everything:
        everything.bind((0, groups))
        driver.restore()
        assert not select.select([everything], [], [], 0)[0]


def test_what_is_restored(driver: Seg6Southbound, router: Namespace) -> None:
    before = router.snapshot()
    router.ip("-6 route flush table 21301")
    for priority in (21301, 21302, 21303, 21305):
        router.ip(f"-6 rule del priority {priority}")
    driver.disturbed()
    state = driver.restore()
    assert state.repaired == 5
    assert state.items == frozenset(ALL)
    after = router.snapshot()
    key = "-6 rule show"
    assert sorted(after.pop(key), key=str) == sorted(before.pop(key), key=str)
    assert after == before
    assert not driver.disturbed()
    assert driver.restore().repaired == 0


def test_the_router_identity_is_restored(driver: Seg6Southbound, router: Namespace) -> None:
    device = driver.restore().access[0]
    before = router.snapshot()["-d addr show"]
    router.ip(f"link set {device.device} down")
    assert driver.disturbed()
    assert driver.restore().access[0] == device
    assert router.snapshot()["-d addr show"] == before
    router.ip(f"link del {device.device}")
    assert driver.disturbed()
    made = driver.restore().access[0]
    assert (made.device, made.link_local) == (device.device, device.link_local)
    assert made.index != device.index
    driver.disturbed()
    driver.restore()
    assert not driver.disturbed(), "our own work wakes us"


def test_interfaces_that_go_and_come(driver: Seg6Southbound, router: Namespace) -> None:
    acc0, acc1 = driver.restore().access
    router.ip("link del acc1")
    router.ip("link set acc0 up")
    state = driver.restore()
    assert (state.access, state.faults) == ((acc0,), ())
    assert not any("acc1" in map(str, item.key) for item in state.items)
    assert acc1.device not in router.ip("-6 rule show"), "a rule of what is gone is left"
    router.ip("link add acc1 type veth peer name acc1-far")
    _, back = driver.restore().access
    assert back.interface == "acc1"
    assert back.index != acc1.index
    put(driver, *ALL)
    assert driver.dump() == frozenset(ALL)

    router.ip("link del core")
    assert driver.restore().core_index == 0
    router.ip("link add core type veth peer name core-far")
    router.ip("link set core up")
    index = driver.restore().core_index
    assert index
    put(driver, *ALL)
    assert driver.dump() == frozenset(ALL)
    assert f"{index}: core@" in router.ip("link show core")


def test_an_interface_that_cannot_be_prepared_costs_that_link_only(
    driver: Seg6Southbound, router: Namespace
) -> None:
    before = driver.restore()
    router.ip("link del acc1")
    router.ip("link add acc1 index 900 type bridge")
    router.ip("link add maar900 type bridge")
    state = driver.restore()
    assert state.access == before.access[:1]
    assert state.faults == ("the name maar900 is taken by a device that is not ours",)


def test_a_kernel_that_does_not_answer_is_one_line(
    driver: Seg6Southbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(self: Netlink, requests: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(Netlink, "transact", no_answer)
    with pytest.raises(DriverUnavailable, match="timed out") as error:
        driver.restore()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
