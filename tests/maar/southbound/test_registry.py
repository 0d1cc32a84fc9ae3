from __future__ import annotations

import dataclasses
import errno

import pytest
from pyroute2.netlink.rtnl import RTM_NEWROUTE

from relay_maar.core.items import Change, Put, Route, Unreachable
from relay_maar.southbound.api import DriverUnavailable, SouthboundError, SouthboundSettings
from relay_maar.southbound.fake import FakeKernel, FakeSouthbound
from relay_maar.southbound.netlink import Message, Netlink, Refused, Request
from relay_maar.southbound.registry import NAMES, open_driver
from tests.maar.southbound.namespaces import Namespace
from tests.maar.southbound.test_contract import AWAY, LOCAL


@pytest.mark.parametrize("name", ["ip6tnl", "", "Seg6"])
def test_an_unknown_driver_is_one_clear_line(name: str, settings: SouthboundSettings) -> None:
    with pytest.raises(DriverUnavailable) as error:
        open_driver(name, settings)
    text = str(error.value)
    assert "\n" not in text
    assert repr(name) in text
    assert all(known in text for known in NAMES)


def test_fake_by_name(settings: SouthboundSettings) -> None:
    assert open_driver("fake", settings).name == "fake"


@pytest.mark.root
def test_auto_is_what_the_kernel_carries(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        before = router.snapshot()
        driver = open_driver("auto", settings)
        assert driver.name == "seg6"
        assert router.snapshot() == before
        driver.close(keep=True)


@pytest.mark.root
@pytest.mark.parametrize("name", ["auto", "seg6"])
def test_a_kernel_that_refuses(name: str, router: Namespace, settings: SouthboundSettings) -> None:
    """Loopback down stands for anything that a kernel lacks."""
    with router.inside():
        router.ip("link set lo down")
        with pytest.raises(DriverUnavailable, match="seg6: ") as error:
            open_driver(name, settings)
        assert "\n" not in str(error.value)


@pytest.mark.root
def test_a_kernel_without_source_specific_routes(
    router: Namespace, settings: SouthboundSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Netlink.request

    def answered(self: Netlink, request: Request | Message) -> None:
        if isinstance(request, Request) and request.number == RTM_NEWROUTE and request.body[2]:
            raise Refused(errno.EINVAL, "Specifying source address requires IPV6_SUBTREES")
        ask(self, request)

    monkeypatch.setattr(Netlink, "request", answered)
    with router.inside():
        with pytest.raises(DriverUnavailable, match=r"^seg6: source-specific routes .*EINVAL"):
            open_driver("seg6", settings)
        assert router.ip("-6 route show table all proto 213") == ""


def test_the_fake_kernel_refuses_on_demand(settings: SouthboundSettings) -> None:
    def mood(change: Change) -> str | None:
        return "ENOMEM: no more routes" if change.item.key == ("route", AWAY) else None

    kernel = FakeKernel()
    kernel.refuse = mood
    driver = FakeSouthbound(settings, kernel)
    changes = [Put(Route(prefix, Unreachable())) for prefix in (AWAY, LOCAL)]
    with pytest.raises(SouthboundError) as error:
        driver.apply(changes)
    assert error.value.failures == ((changes[0], "ENOMEM: no more routes"),)
    assert str(error.value) == f"put route {AWAY}: ENOMEM: no more routes"
    assert kernel.history == changes[1:]


def test_fakes_do_not_share_by_accident(settings: SouthboundSettings) -> None:
    one, other = FakeSouthbound(settings), FakeSouthbound(dataclasses.replace(settings))
    one.apply([Put(Route(LOCAL, Unreachable()))])
    assert other.dump() == frozenset()


def test_the_fake_kernel_can_be_disturbed(settings: SouthboundSettings) -> None:
    kernel = FakeKernel()
    driver = FakeSouthbound(settings, kernel)
    _, second = driver.open()
    driver.apply([Put(Route(prefix, Unreachable())) for prefix in (AWAY, LOCAL)])
    del kernel.items["route", AWAY]
    kernel.gone = {"acc0", "core"}
    kernel.disturbed = True
    assert driver.disturbed()
    assert not driver.disturbed()
    state = driver.restore()
    assert (state.core_index, state.access) == (0, (second,))
    assert state.items == {Route(LOCAL, Unreachable())}
