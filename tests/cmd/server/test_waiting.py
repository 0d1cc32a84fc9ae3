"""What waits: bounded by number and by age, the oldest goes, each side has its turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhcp_cmd.server.waiting import WaitingRoom


def no(_item: int) -> bool:
    return False


def is_even(item: int) -> bool:
    return item % 2 == 0


def at(when: float, *items: int) -> list[tuple[float, int]]:
    return [(when, item) for item in items]


def test_the_oldest_goes_when_too_many_wait() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(3, 10, no, no)
    assert room.add("a", at(0, 1, 2)) == 0
    assert room.add("a", at(0, 3, 4, 5)) == 2
    assert room.take(10) == [("a", 3), ("a", 4), ("a", 5)]


def test_what_waited_too_long_goes() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(10, 0.5, no, no)
    room.add("a", at(0, 1, 2))
    room.add("a", at(0.4, 3))
    assert room.drop_old(0.5) == 0
    assert room.drop_old(0.6) == 2
    assert room.take(10) == [("a", 3)]


def test_what_is_not_soon_asked_again_waits_longer() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(10, 0.5, no, is_even)
    room.add("a", at(0, 1, 2, 3, 4) + at(0.3, 5, 6))
    assert room.drop_old(0.6) == 2
    assert room.drop_old(5.0) == 1
    assert room.take(1) == [("a", 2)], "in its turn"
    assert room.drop_old(5.1) == 1
    assert room.take(10) == [("a", 6)]


def test_a_flood_from_one_side_leaves_the_others_their_turn() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(1000, 10, no, no)
    room.add("flood", at(0, *range(900)))
    room.add("quiet", at(0, 1, 2))
    batch = room.take(8)
    assert [item for side, item in batch if side == "quiet"] == [1, 2]
    assert [item for side, item in batch if side == "flood"] == list(range(6))


def test_what_came_from_a_closed_listener_is_forgotten() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(10, 10, no, no)
    room.add("a", at(0, 1, 2))
    room.add("b", at(0, 3))
    assert room.forget("a") == 2
    assert room.take(10) == [("b", 3)]
    assert len(room) == 0


def test_what_begins_waits_where_not_all_can_be_answered() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(100, 10, is_even, no)
    room.add("a", [(n, n) for n in range(12)])
    # A quarter is for what begins; each batch in the order in which it came.
    assert [item for _, item in room.take(4)] == [0, 1, 3, 5]
    assert [item for _, item in room.take(4)] == [2, 7, 9, 11]
    assert [item for _, item in room.take(4)] == [4, 6, 8, 10]


def test_where_all_can_be_answered_the_order_is_that_of_arrival() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(100, 10, is_even, no)
    room.add("a", [(n, n) for n in (4, 5, 6, 7)])
    assert [item for _, item in room.take(4)] == [4, 5, 6, 7]


def test_what_begins_is_dropped_first() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(3, 10, is_even, no)
    assert room.add("a", [(n, n) for n in range(5)]) == 2
    assert [item for _, item in room.take(4)] == [1, 3, 4]
    assert room.add("a", [(n, n) for n in (1, 3, 5, 7)]) == 1
    assert [item for _, item in room.take(4)] == [3, 5, 7]


def test_what_is_asked_again_soon_is_dropped_before_what_is_not() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(3, 10, no, is_even)
    assert room.add("a", [(n, n) for n in range(5)]) == 2
    assert [item for _, item in room.take(4)] == [0, 2, 4]


def test_of_both_sorts_that_go_on_the_oldest_is_next() -> None:
    """Of two messages of one node, a Request and a Rebind, the later one must not be answered first."""
    room: WaitingRoom[str, int] = WaitingRoom(100, 10, no, is_even)
    room.add("a", [(n, n) for n in (1, 2, 4, 3, 5, 6, 8)])
    assert [item for _, item in room.take(3)] == [1, 2, 3]
    assert [item for _, item in room.take(3)] == [4, 5, 6]
    assert [item for _, item in room.take(3)] == [8]


def test_what_may_stay_is_not_looked_at_again() -> None:
    """However much waits: under overload what is old is dropped before each batch."""
    looked = 0

    def lasts(_item: int) -> bool:
        nonlocal looked
        looked += 1
        return True

    room: WaitingRoom[str, int] = WaitingRoom(10_000, 0.5, no, lasts)
    room.add("a", at(0, *range(5_000)))
    assert room.drop_old(0.6) == room.drop_old(0.7) == 0
    assert looked == 5_000
    assert room.drop_old(5.1) == 5_000


def test_both_sorts_grow_too_old() -> None:
    room: WaitingRoom[str, int] = WaitingRoom(10, 0.5, is_even, no)
    room.add("a", at(0, 1, 2))
    room.add("a", at(0.4, 3, 4))
    assert room.drop_old(0.6) == 2
    assert sorted(item for _, item in room.take(4)) == [3, 4]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60),
    st.integers(1, 20),
)
def test_nothing_is_lost_or_turned_round(arrivals: list[tuple[str, int]], batch: int) -> None:
    room: WaitingRoom[str, int] = WaitingRoom(100, 10, no, no)
    for side, item in arrivals:
        room.add(side, at(0, item))
    out: list[tuple[str, int]] = []
    while taken := room.take(batch):
        assert len(taken) <= batch
        out += taken
    for side in "abc":
        assert [each for each in out if each[0] == side] == [
            each for each in arrivals if each[0] == side
        ]
