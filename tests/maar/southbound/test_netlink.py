"""Many requests in one exchange with the kernel: which answer belongs to which, and what when answers are lost."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Iterator, Sequence

import pytest

from dmm_wire.address import Prefix, parse_address, parse_mac
from relay_maar.core.items import Drop, Item, Neighbour, Put, Route, Tunnel, Unreachable
from relay_maar.southbound.api import SouthboundError, SouthboundSettings
from relay_maar.southbound.messages import drop_route, put_route, rule
from relay_maar.southbound.netlink import Netlink, Refused, Request
from relay_maar.southbound.plan import GONE
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Namespace

pytestmark = pytest.mark.root

PROTOCOL = 213
TABLE = 4711
MANY = 3000
"""Requests: more than one exchange takes."""
UNREACHABLE = 7
PREFIXES = [Prefix.parse(f"2001:db8:7:{number:x}::/64") for number in range(MANY)]


@pytest.fixture
def netlink(router: Namespace) -> Iterator[Netlink]:
    with router.inside():
        made = Netlink()
        yield made
        made.close()


def puts() -> list[Request]:
    return [put_route(each, TABLE, 1, PROTOCOL, kind=UNREACHABLE) for each in PREFIXES]


def drops() -> list[Request]:
    return [drop_route(each, TABLE, 1, PROTOCOL) for each in PREFIXES]


def numbers(verdicts: list[Refused | None]) -> list[int]:
    return [0 if verdict is None else verdict.number for verdict in verdicts]


def in_the_table(router: Namespace) -> int:
    return len(router.ip(f"-6 route show table {TABLE}").splitlines())


def test_each_request_has_its_own_answer(netlink: Netlink, router: Namespace) -> None:
    assert numbers(netlink.transact(puts())) == [0] * MANY
    assert in_the_table(router) == MANY
    # Every third is gone already.
    assert numbers(netlink.transact(drops()[::3])) == [0] * (MANY // 3)
    expected = [errno.ESRCH if number % 3 == 0 else 0 for number in range(MANY)]
    assert numbers(netlink.transact(drops())) == expected
    assert router.ip(f"-6 route show table all proto {PROTOCOL}") == ""


def test_answers_that_were_lost_are_asked_for_again(
    netlink: Netlink, router: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only refusals can be too many: of what the kernel takes it says so once for a batch."""
    rules = [rule(9, TABLE, PROTOCOL, put=True, source=each) for each in PREFIXES[:1000]]
    exchange, lost = netlink._exchange, []

    def counted(requests: Sequence[Request]) -> list[Refused | None] | None:
        verdicts = exchange(requests)
        lost.append(verdicts is None)
        return verdicts

    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    monkeypatch.setattr(netlink, "_exchange", counted)
    assert numbers(netlink.transact(rules)) == [0] * 1000
    assert lost == [False]
    assert numbers(netlink.transact(rules)) == [errno.EEXIST] * 1000
    assert any(lost), "nothing was lost: the buffer is too large"
    found = router.ip("-6 rule show").splitlines()
    assert sum(line.startswith("9:") for line in found) == 1000


def test_what_was_done_before_answers_were_lost_counts_as_done(
    netlink: Netlink, router: Namespace
) -> None:
    """It is done again, and refused as what callers take for done."""
    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    assert numbers(netlink.transact(puts()[:1000])) == [0] * 1000
    missing = [drop_route(each, TABLE, 2, PROTOCOL) for each in PREFIXES[:1000]]
    there = drops()[:1000]
    mixed = [request for pair in zip(there, missing, strict=True) for request in pair]
    assert set(numbers(netlink.transact(mixed))) <= {0, *GONE}
    assert router.ip(f"-6 route show table all proto {PROTOCOL}") == ""


def test_the_smallest_buffer_will_do(netlink: Netlink, router: Namespace) -> None:
    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    assert numbers(netlink.transact(puts()[:300])) == [0] * 300
    assert in_the_table(router) == 300


def test_what_does_not_fit_one_send_is_sent_in_parts(netlink: Netlink, router: Namespace) -> None:
    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    assert numbers(netlink.transact(puts())) == [0] * MANY
    assert in_the_table(router) == MANY


def test_a_request_that_does_not_fit_by_itself_is_an_error(netlink: Netlink) -> None:
    huge = Request(24, 0, bytes(1 << 24))
    with pytest.raises(OSError, match="Message too long"):
        netlink.transact([huge])


def test_a_late_answer_is_nobodys(netlink: Netlink) -> None:
    """Of an exchange that was given up, the answers come to the next one."""
    netlink._send([netlink._encode(request, 4) for request in drops()[:5]])
    assert numbers(netlink.transact(puts()[:3])) == [0, 0, 0]
    assert numbers(netlink.transact(drops()[:5])) == [0, 0, 0, errno.ESRCH, errno.ESRCH]


def test_sequence_numbers_begin_anew(netlink: Netlink) -> None:
    netlink._sequence = 0xFFFFFFFF - 700
    assert numbers(netlink.transact(puts())) == [0] * MANY
    assert numbers(netlink.transact(drops())) == [0] * MANY


def test_signals_do_not_disturb_a_batch(netlink: Netlink, router: Namespace) -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        assert numbers(netlink.transact(puts())) == [0] * MANY
        assert numbers(netlink.transact(drops())) == [0] * MANY
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught


def test_what_the_kernel_refuses_reaches_the_change_that_it_was_for(
    router: Namespace, settings: SouthboundSettings
) -> None:
    """Drivers check before they ask; this only the kernel knows: a device that has gone meanwhile."""
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        here = [_neighbour("acc0", number) for number in range(400)]
        gone = [_neighbour("acc1", number) for number in range(400)]
        router.ip("link del acc1")
        mixed = [item for pair in zip(here, gone, strict=True) for item in pair]
        with pytest.raises(SouthboundError) as error:
            driver.apply([*map(Put, mixed), Put(Tunnel(parse_address("2001:db8:f::2")))])
        assert [change.item for change, _ in error.value.failures] == gone
        assert {reason for _, reason in error.value.failures} == {
            "ENODEV: No such device (access interface acc1)"
        }
        assert driver.dump() == {*here, Tunnel(parse_address("2001:db8:f::2"))}
        driver.close(keep=False)


def test_a_driver_whose_answers_are_lost_makes_every_change_all_the_same(
    router: Namespace, settings: SouthboundSettings
) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        driver._netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        items: list[Item] = [_neighbour("acc0", number) for number in range(300)]
        items += [Route(each, Unreachable()) for each in PREFIXES[:300]]
        driver.apply([Put(item) for item in items])
        assert driver.dump() == frozenset(items)
        driver.apply([Drop(item) for item in items])
        assert driver.dump() == frozenset()
        driver.close(keep=False)


def _neighbour(interface: str, number: int) -> Neighbour:
    return Neighbour(
        interface, parse_address(f"fe80::2:{number:x}"), parse_mac("02:00:00:00:00:01")
    )
