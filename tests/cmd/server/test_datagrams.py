"""Many datagrams in one system call, over loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from dhcp_cmd.server.datagrams import (
    MAX_DATAGRAM,
    SLOTS,
    Address,
    Batch,
    holds_more,
    host_of,
    make_address,
    receive_one,
    send_one,
    stamp_arrivals,
    with_port,
)
from dmm_wire.address import UNSPECIFIED, parse_address

LOOPBACK = parse_address("::1")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        for each in (near, far):
            each.bind(("::1", 0))
            each.setblocking(False)
        yield near, far


def at(sock: socket.socket) -> Address:
    return make_address(LOOPBACK, sock.getsockname()[1])


def received(batch: Batch, sock: socket.socket) -> list[tuple[bytes, Address]]:
    found: list[tuple[bytes, Address]] = []
    while more := batch.receive(sock.fileno()):
        found += [each[:2] for each in more]
    return found


def test_an_address_is_the_kernels() -> None:
    address = make_address(parse_address("fe80::7"), 547, 9)
    assert host_of(address) == parse_address("fe80::7")
    assert with_port(address, 546) == make_address(parse_address("fe80::7"), 546, 9)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
            other.connect(("::1", sock.getsockname()[1]))
            other.send(b"x")
            ((data, sender, _),) = Batch().receive(sock.fileno())
            assert (data, sender) == (b"x", at(other))


def test_what_is_sent_arrives_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    """More than one call's worth, of all sizes, with the same memory used again."""
    near, far = pair
    here, there = Batch(), Batch()
    sizes = (0, 1, 548, 1_452, 9_000)
    datagrams = [
        bytes((number % 251,)) * sizes[number % len(sizes)] for number in range(SLOTS + 22)
    ]
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    for _ in range(2):
        assert here.send(near.fileno(), [(each, at(far)) for each in datagrams[:SLOTS]]) == 0
        assert received(there, far) == [(each, at(near)) for each in datagrams[:SLOTS]]
    rest = datagrams[SLOTS:]
    assert here.send(near.fileno(), [(each, at(far)) for each in rest]) == 0
    assert received(there, far) == [(each, at(near)) for each in rest]
    assert here.send(near.fileno(), []) == 0


def test_the_largest_datagram_is_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    largest = b"\xff" * (MAX_DATAGRAM - 8)  # UDP's header
    assert Batch().send(near.fileno(), [(largest, at(far))]) == 0
    assert received(Batch(), far) == [(largest, at(near))]


def test_one_that_cannot_be_sent_costs_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    nowhere = make_address(LOOPBACK, 0)  # no port
    oversized = b"\0" * MAX_DATAGRAM
    good = (b"good", at(far))
    unsent = Batch().send(
        near.fileno(), [(b"bad", nowhere), good, (oversized, at(far)), (b"bad", nowhere), good]
    )
    assert unsent == 3
    assert received(Batch(), far) == [(b"good", at(near))] * 2


def test_it_is_known_when_it_came(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendto(b"nobody writes it down", far.getsockname()[:2])
    assert [came for _, _, came in Batch(stamps=True).receive(far.fileno())] == [0]
    there = Batch(stamps=True)
    stamp_arrivals(far)
    for _ in range(2):
        before = time.time_ns()
        for _ in range(SLOTS):
            near.sendto(b"x", far.getsockname()[:2])
        after = time.time_ns()
        came = [came for _, _, came in there.receive(far.fileno())]
        assert len(came) == SLOTS
        assert came == sorted(came)
        assert before <= came[0]
        assert came[-1] <= after


def test_one_by_itself_is_what_many_are(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    stamp_arrivals(far)
    before = time.time_ns()
    for data in (b"one", b"two", b""):
        assert send_one(near, data, at(far))
    data, sender, came = receive_one(far) or pytest.fail("nothing came")
    assert (data, sender) == (b"one", at(near))
    assert before <= came <= time.time_ns()
    assert holds_more(far)
    (second, third) = Batch(stamps=True).receive(far.fileno())
    assert (second[:2], third[:2]) == ((b"two", at(near)), (b"", at(near)))
    assert came <= second[2]
    assert not holds_more(far)
    assert receive_one(far) is None


def test_one_that_nobody_stamped_came_at_no_time(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    assert send_one(near, b"x", at(far))
    assert receive_one(far) == (b"x", at(near), 0)


def test_one_by_itself_cannot_be_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    assert not send_one(near, b"bad", make_address(LOOPBACK, 0))  # no port
    assert not send_one(near, b"\0" * MAX_DATAGRAM, at(far))
    assert receive_one(far) is None


def test_nothing_there_and_no_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    assert Batch().receive(far.fileno()) == []
    descriptor = near.fileno()
    near.close()
    assert Batch().receive(descriptor) == []
    assert Batch().send(descriptor, [(b"x", make_address(UNSPECIFIED, 1))]) == 1
