from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dmm_wire.address import Prefix, parse_address
from relay_maar.southbound.api import Southbound, SouthboundSettings
from relay_maar.southbound.fake import FakeKernel, FakeSouthbound
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Namespace, wait

SETTINGS = SouthboundSettings(
    endpoint=parse_address("2001:db8:f::1"),
    core_interface="core",
    access_interfaces=("acc0", "acc1"),
    pools=(Prefix.parse("2001:db8:1::/48"),),
)


@pytest.fixture
def settings() -> SouthboundSettings:
    return SETTINGS


@pytest.fixture
def router() -> Iterator[Namespace]:
    """A router with the interfaces of SETTINGS; the far ends of its cables are in another namespace."""
    namespace, outside = Namespace("r"), Namespace("o")
    try:
        for interface in ("core", "acc0", "acc1"):
            namespace.link(interface, outside, f"{interface}-far")
        namespace.ip("addr add 2001:db8:c::1/64 dev core nodad")
        # The kernel makes it local when it gets to it: a snapshot has to wait.
        wait(lambda: "local 2001:db8:c::1 " in namespace.ip("-6 route show table local"))
        yield namespace
    finally:
        namespace.remove()
        outside.remove()


@pytest.fixture(
    params=["fake", pytest.param("seg6", marks=[pytest.mark.root, pytest.mark.needs("nft")])]
)
def new_driver(request: pytest.FixtureRequest) -> Iterator[Callable[[], Southbound]]:
    """Makes drivers on one and the same kernel, as one process after the other would."""
    made: list[Southbound] = []

    def remembered(driver: Southbound) -> Southbound:
        made.append(driver)
        return driver

    if request.param == "fake":
        kernel = FakeKernel()
        yield lambda: remembered(FakeSouthbound(SETTINGS, kernel))
    else:
        router: Namespace = request.getfixturevalue("router")
        with router.inside():
            yield lambda: remembered(Seg6Southbound(SETTINGS))
    for driver in made:
        driver.close(keep=True)
