"""A hand-made history: one node that commutes between two MAARs, another that leaves."""

from __future__ import annotations

from pathlib import Path

from dhcp_cmd.core.model import (
    MICROS,
    Change,
    DropBinding,
    DropNode,
    Event,
    EventType,
    Kind,
    PutBinding,
    PutNode,
    Record,
    State,
)
from dhcp_cmd.store import SqlStore
from tests.cmd.store.domain import (
    T0,
    a_binding,
    a_node,
    an_address,
    duid,
    ended,
    event,
    handover,
    mac,
    sqlite_store,
    the_pool,
)

MINUTE = 60 * MICROS


def commuter(folder: Path) -> SqlStore:
    """In minutes after T0 (08:00): node 1 attaches at maar1 at 0 and gets a /64, an address of it and a /60; moves to
    maar2 at 10 and gets a /64; comes back at 20. Node 2 is at maar1 from 5, gets slot 2, releases it at 15; it is
    reclaimed at 30 and node 3, first known by its link-layer address as node 4, has it from 31.
    """
    store = sqlite_store(folder)
    with store.transaction() as transaction:
        domain = transaction.domain()
        one, two = the_pool(domain, 1), the_pool(domain, 2)
        pd = the_pool(domain, 1, Kind.DELEGATED)
        home, away = a_binding(one, 1, 1), a_binding(two, 0, 1)
        address, delegated = an_address(home, 0x99), a_binding(pd, 3, 1)
        other = a_binding(one, 2, 2)
        over = ended(other, T0 + 15 * MINUTE, T0 + 30 * MINUTE)
        next_one = a_binding(one, 2, 4, assigned_at=T0 + 31 * MINUTE)

        def told(kind: EventType, binding: object, minutes: int) -> Record:
            return Record(event(kind, binding, T0 + minutes * MINUTE))  # type: ignore[arg-type]

        def moved(node: int, left: int | None, reached: int, minutes: int) -> Record:
            return Record(handover(node, left, reached, T0 + minutes * MINUTE))

        at_home = (home, address, delegated)
        A, D = EventType.ASSIGNED, EventType.DEPRECATED
        first: list[Change] = [
            PutNode(a_node(1, duid(1), mac(1)), True),
            PutNode(a_node(2, serving=1), True),
            PutNode(a_node(4, mac(3)), True),
            moved(1, None, 1, 0),
            *(told(A, b, 0) for b in at_home),
            moved(2, None, 1, 5),
            told(A, other, 5),
            moved(1, 1, 2, 10),
            *(told(D, b, 10) for b in at_home),
            told(A, away, 10),
            told(EventType.RELEASED, over, 15),
            moved(1, 2, 1, 20),
            *(told(A, b, 20) for b in at_home),
            told(D, away, 20),
            told(EventType.RECLAIMED, over, 30),
            moved(4, None, 1, 31),
            told(A, next_one, 31),
            Record(
                Event(
                    T0 + 32 * MINUTE,
                    T0 + 32 * MINUTE,
                    EventType.CONFLICT,
                    2,
                    "rebind",
                    detail="two at once",
                )
            ),
            *(PutBinding(b, True) for b in (*at_home, away._replace(state=State.DEPRECATED))),
            PutBinding(over, True),
        ]
        transaction.write(first)
        transaction.write([DropBinding(over.prefix, 2), PutBinding(next_one, True)])
        merged = next_one._replace(node=3)
        transaction.write(
            [
                PutNode(a_node(3), True),
                PutBinding(merged, False),
                DropNode(4),
                PutNode(a_node(3, duid(3), mac(3)), False),
                told(EventType.RECLAIMED, next_one, 33),
                told(A, merged, 33),
            ]
        )
        transaction.commit()
    return store
