"""Several CMDs on one PostgreSQL, at the same nodes and the last free prefixes: nothing is lost, nothing given twice.

Each worker is a process with connections of its own. Their clock is one, and goes on by ten seconds whenever one of
them looks at it: so leases end, anchors are given up and prefixes come free for others while the workers run.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
from sqlalchemy import select

from dhcp_cmd.core.model import MICROS, BindingRequest, Decision, Event, EventType, Settings
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, admin, maintenance, open_store, tables
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.rows import binding_of, event_of
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType as M
from tests.cmd.core.world import SERVER, START, Answer, Host, World, na, pd
from tests.cmd.store.domain import opened, url_of

Ticks: TypeAlias = "Synchronized[int]"

WORKERS = 4
BATCHES = 60
BATCH = 16
HOSTS = 40
BITS = 4
"""16 units in each pool: 40 hosts at 3 MAARs want nearly all of them, and more."""
SETTINGS = Settings(server_duid=SERVER, anchor_hold=900, node_retention=600, reuse_margin=5)

KINDS = (M.SOLICIT, M.REQUEST, M.REQUEST, M.RENEW, M.REBIND, M.REBIND, M.RELEASE, M.DECLINE)


class Promise(NamedTuple):
    """What a client was told: a lease that is valid until then, and by when it was told."""

    host: int
    prefix: Prefix
    until: int
    told: int


class Done(NamedTuple):
    """What a worker did."""

    promises: list[Promise]
    outcomes: Counter[str]
    handled: int
    reaped: int


def requests(
    world: World, rng: random.Random, held: dict[int, list[Prefix]]
) -> Iterator[tuple[int, BindingRequest]]:
    for _ in range(BATCH):
        number = rng.randint(1, HOSTS)
        kind = rng.choice(KINDS)
        known = held[number] if kind in (M.RENEW, M.REBIND, M.RELEASE, M.DECLINE) else []
        addresses = [each.address for each in known if each.length == 128]
        prefixes = [each for each in known if each.length < 128]
        if kind in (M.RELEASE, M.DECLINE):
            addresses, prefixes = addresses[-1:], prefixes[-1:]
        ias = [na(1, *addresses)]
        if kind != M.DECLINE and rng.random() < 0.5:
            ias.append(pd(1, *prefixes))
        yield (
            number,
            world.packet(
                Host(number),
                rng.randint(1, 3),
                kind,
                *ias,
                rapid=rng.random() < 0.5,
                mac=rng.random() < 0.9,
            ),
        )


def promised(number: int, decision: Decision, since: int, told: int) -> Iterator[Promise]:
    if decision.reply is None or decision.reply.type != M.REPLY:
        return
    answer = Answer(decision)
    for leases in answer.na.values():
        for address, (_, valid) in leases.items():
            if valid:
                yield Promise(number, Prefix(address, 128), since + valid * MICROS, told)
    for delegated in answer.pd.values():
        for prefix, (_, valid) in delegated.items():
            if valid:
                yield Promise(number, prefix, since + valid * MICROS, told)


def work(url: str, number: int, ticks: Ticks, pipe: Pipe) -> None:
    """One CMD: batches, and the reaper after every third."""

    def clock() -> int:
        with ticks.get_lock():
            ticks.value += 10
            return START + ticks.value * MICROS

    store = open_store(url, busy_timeout=60)
    world = World(admin.read_domain(store))
    world.asked = number << 20
    cmd = Cmd(store, SETTINGS, lane=number)
    rng = random.Random(number)
    held: dict[int, list[Prefix]] = defaultdict(list)
    promises: list[Promise] = []
    handled = reaped = 0
    pipe.send("ready")
    pipe.recv()
    for turn in range(BATCHES):
        hosts, batch = zip(*requests(world, rng, held), strict=True)
        since = clock()
        decisions = cmd.handle(batch, clock)
        told = clock()
        handled += len(decisions)
        for host, decision in zip(hosts, decisions, strict=True):
            found = list(promised(host, decision, since, told))
            promises += found
            if found:
                held[host] = [each.prefix for each in found]
        if turn % 3 == 0:
            reaped += cmd.reap(clock(), 20)
    store.close()
    pipe.send(Done(promises, cmd.outcomes, handled, reaped))


def run(url: str) -> list[Done]:
    """All workers at once, as far as the machine can; what each did."""
    context = multiprocessing.get_context("spawn")
    ticks = context.Value("q", 0)
    workers = []
    for number in range(WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(url, number, ticks, theirs), daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    for _, pipe in workers:
        assert pipe.recv() == "ready"
    for _, pipe in workers:
        pipe.send("go")
    done = [pipe.recv() for _, pipe in workers]
    for process, pipe in workers:
        pipe.close()
        process.join()
        assert process.exitcode == 0
        process.close()
    return done


# --- what must hold afterwards ---


def history(store: SqlStore) -> list[Event]:
    with reading(store.engine) as connection:
        query = select(*tables.columns(tables.history)).order_by(tables.history.c.id)
        return [event_of(row) for row in connection.execute(query)]


def nodes_of(store: SqlStore) -> dict[str, set[int]]:
    """Every node that a DUID ever named."""
    with reading(store.engine) as connection:
        named = connection.execute(
            select(tables.node_identity.c.text, tables.node_identity.c.node_id)
        )
        found: dict[str, set[int]] = defaultdict(set)
        for text, node in named:
            found[text].add(node)
    return found


def chains(events: Sequence[Event]) -> None:
    """Each node moves from where it was, and each visit is later than the one before."""
    where: dict[int, tuple[int | None, int]] = {}
    for event in events:
        if event.type is EventType.HANDOVER:
            was, generation = where.get(event.node, (None, -1))
            assert event.from_maar == was, event
            assert event.generation is not None
            assert event.generation > generation, event
            where[event.node] = event.to_maar, event.generation


def tenures(events: Sequence[Event]) -> dict[Prefix, list[list[Event]]]:
    """The lives of each prefix, each from its first assignment until it was reclaimed, of one node alone."""
    lives: dict[Prefix, list[list[Event]]] = defaultdict(list)
    is_open: dict[bytes, Prefix] = {}
    for event in events:
        if event.prefix is None or event.type is EventType.CONFLICT:
            continue
        key = event.prefix.address
        if key not in is_open:
            assert event.type is EventType.ASSIGNED, event
            is_open[key] = event.prefix
            lives[event.prefix].append([])
        life = lives[event.prefix][-1]
        life.append(event)
        assert {each.node for each in life} == {event.node}, life
        if event.type is EventType.RECLAIMED:
            del is_open[key]
    return lives


def kept(store: SqlStore, promises: Sequence[Promise], events: Sequence[Event]) -> None:
    """Every promise is in the database, and its prefix was nobody else's while it lasted."""
    nodes = nodes_of(store)
    lives = tenures(events)
    with reading(store.engine) as connection:
        query = select(*tables.columns(tables.binding))
        rows = {each.prefix: each for each in map(binding_of, connection.execute(query))}
    for promise in promises:
        holders = nodes[str(Host(promise.host).identity)]
        for life in lives[promise.prefix]:
            end = life[-1].at if life[-1].type is EventType.RECLAIMED else None
            if life[0].at <= promise.told and (end is None or promise.until < end):
                assert life[0].node in holders, (promise, life)
                if end is None:
                    assert rows[promise.prefix].valid_until >= promise.until, promise
                break
        else:
            raise AssertionError(f"{promise} is in no life of {lives[promise.prefix]}")


@pytest.mark.slow
@pytest.mark.needs("postgres")
def test_several_cmds_never_disagree(tmp_path: Path) -> None:
    with opened("postgresql", tmp_path, bits=BITS) as store:
        done = run(url_of(store, tmp_path))
        outcomes = sum((each.outcomes for each in done), Counter[str]())
        asked = WORKERS * BATCHES * BATCH
        assert sum(each.handled for each in done) == asked
        retried = outcomes.pop("batch-retried", 0)
        assert sum(outcomes.values()) == asked
        assert outcomes["internal-error"] == outcomes["collision"] == 0
        assert retried > 0  # they were at the same things
        assert maintenance.check(store) == []
        events = history(store)
        chains(events)
        promises = [promise for each in done for promise in each.promises]
        assert len(promises) > asked / 10
        kept(store, promises, events)
        kinds = Counter(event.type for event in events)
        assert min(kinds[each] for each in EventType) > 0, kinds
