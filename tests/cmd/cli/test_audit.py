"""The questions of schema/audit on a hand-made history: right answers, by an index, the same in the engine's shell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from dhcp_cmd import audit
from dhcp_cmd.core.model import Event, EventType, Kind, Record
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import SqlStore, maintenance, tables
from dhcp_cmd.store.engine import reading
from dmm_wire.address import Prefix, format_address, parse_address
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.cli.commuter import MINUTE, commuter
from tests.cmd.store.domain import ENGINES, T0, duid, mac, opened

ONE = "duid:00030001000000000001 eui48:02:00:00:00:00:01"
TWO = "duid:00030001000000000002"
THREE = "duid:00030001000000000003 eui48:02:00:00:00:00:03"
HOME, ADDRESS, DELEGATED = "2001:db8:100:1::/64", "2001:db8:100:1::99/128", "2001:db8:101:30::/60"
SHARED = "2001:db8:100:2::/64"
AWAY = "2001:db8:200::/64"


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path) as made:
        commuter(made)
        yield made


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[SqlStore]:
    with opened("sqlite", tmp_path) as made:
        commuter(made)
        yield made


def test_the_history_is_sound(store: SqlStore) -> None:
    assert maintenance.check(store) == []


@pytest.mark.parametrize(
    ("what", "minutes", "answer"),
    [
        ("2001:db8:100:1::99", -1, []),
        (
            "2001:db8:100:1::99",
            0,
            [(HOME, ONE, "maar1", "maar1"), (ADDRESS, ONE, "maar1", "maar1")],
        ),
        ("2001:db8:100:1::98", 5, [(HOME, ONE, "maar1", "maar1")]),
        ("2001:db8:100:1:ffff:ffff:ffff:ffff", 15, [(HOME, ONE, "maar1", "maar2")]),  # tunnelled
        ("2001:db8:100:1::1", 25, [(HOME, ONE, "maar1", "maar1")]),
        ("2001:db8:100:1::1", 61, []),  # what was promised has run out
        ("2001:db8:101:3f::7", 1, [(DELEGATED, ONE, "maar1", "maar1")]),
        ("2001:db8:101:40::", 1, []),
        ("2001:db8:100:2::1", 4, []),
        ("2001:db8:100:2::1", 5, [(SHARED, TWO, "maar1", "maar1")]),
        ("2001:db8:100:2::1", 14, [(SHARED, TWO, "maar1", "maar1")]),
        ("2001:db8:100:2::1", 15, []),
        ("2001:db8:100:2::1", 30, []),
        ("2001:db8:100:2::1", 31, [(SHARED, THREE, "maar1", "maar1")]),  # node 4 then, node 3 now
        ("2001:db8:100:2::1", 34, [(SHARED, THREE, "maar1", None)]),
        (SHARED, 31, [(SHARED, THREE, "maar1", "maar1")]),
        (
            "2001:db8:100::/40",
            11,
            [
                (HOME, ONE, "maar1", "maar2"),
                (ADDRESS, ONE, "maar1", "maar2"),
                (SHARED, TWO, "maar1", "maar1"),
                (DELEGATED, ONE, "maar1", "maar2"),
            ],
        ),
        (
            "2001:db8:100:1::80/121",
            1,
            [(HOME, ONE, "maar1", "maar1"), (ADDRESS, ONE, "maar1", "maar1")],
        ),
        ("2001:db8:100:1::/121", 1, [(HOME, ONE, "maar1", "maar1")]),
        ("2001:db8:200::1", 11, [(AWAY, ONE, "maar2", "maar2")]),
        ("::/0", -1, []),
        ("::1", 11, []),
        ("fe80::", 11, []),
    ],
)
def test_who_had(
    store: SqlStore, what: str, minutes: int, answer: list[tuple[str | None, ...]]
) -> None:
    found = audit.who_had(store, what, T0 + minutes * MINUTE)
    column = {name: index for index, name in enumerate(found.columns)}
    chosen = ("prefix", "identities", "anchor", "serving")
    assert [tuple(row[column[name]] for name in chosen) for row in found.rows] == answer


@pytest.mark.parametrize(
    ("what", "minutes", "since", "until", "event"),
    [
        (HOME, 1, "08:00:00", "09:00:00", "assigned"),
        (HOME, 12, "08:00:00", "09:00:00", "deprecated"),
        (HOME, 25, "08:00:00", "09:00:00", "assigned"),
        (SHARED, 6, "08:05:00", "08:15:00", "assigned"),
        (SHARED, 32, "08:31:00", "08:33:00", "assigned"),
        (SHARED, 34, "08:33:00", "09:00:00", "assigned"),
    ],
)
def test_since_and_until(
    store: SqlStore, what: str, minutes: int, since: str, until: str, event: str
) -> None:
    found = audit.who_had(store, what, T0 + minutes * MINUTE)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    day = "2027-01-15T"
    assert (row["since"], row["until"], row["event"]) == (
        f"{day}{since}.000000Z",
        f"{day}{until}.000000Z",
        event,
    )


def holders(store: SqlStore, what: str, at: int) -> list[tuple[object, object]]:
    """The prefixes, and until when, without the day."""
    found = audit.who_had(store, what, at)
    column = {name: index for index, name in enumerate(found.columns)}
    return [(row[column["prefix"]], str(row[column["until"]])[11:19]) for row in found.rows]


def test_nobody_holds_it_at_its_end(store: SqlStore) -> None:
    """The end is the first moment at which it is over; here it was promised, and nothing is on record."""
    end = T0 + 60 * MINUTE
    assert holders(store, HOME, end - 1) == [(HOME, "09:00:00"), (ADDRESS, "09:00:00")]
    assert holders(store, HOME, end) == []


def test_anchored_away_it_is_held_as_long_as_it_may_be(store: SqlStore) -> None:
    """A node that is away holds its prefix for `anchor-hold`, however long the lifetime."""
    away = update(tables.binding).where(tables.binding.c.state == "deprecated")
    with store.administration() as connection:
        connection.execute(away.values(hold_until=T0 + 40 * MINUTE))
    assert holders(store, AWAY, T0 + 40 * MINUTE - 1) == [(AWAY, "08:40:00")]
    assert holders(store, AWAY, T0 + 40 * MINUTE) == []
    with store.administration() as connection:
        connection.execute(away.values(hold_until=T0 + 90 * MINUTE))
    assert holders(store, AWAY, T0 + 50 * MINUTE) == [(AWAY, "09:00:00")]


def test_every_length_is_found(store: SqlStore) -> None:
    """A prefix of any length covers its own last address, and nothing after it."""
    first = int.from_bytes(parse_address("3fff::"), "big")
    prefixes = [
        Prefix((first | 1 << (128 - length)).to_bytes(16, "big"), length)
        for length in range(17, 129)
    ]
    with store.transaction() as transaction:
        transaction.write(
            [
                Record(Event(T0, T0, EventType.ASSIGNED, 1, "x", each, Kind.DELEGATED, 1, 1))
                for each in prefixes
            ]
        )
        transaction.commit()
    for each in prefixes:
        found = audit.who_had(store, format_address(each.last), T0)
        assert [row[0] for row in found.rows] == [str(each)]


def test_trace(store: SqlStore) -> None:
    found = audit.trace(store, mac(1))
    assert found == audit.trace(store, duid(1))
    column = {name: index for index, name in enumerate(found.columns)}

    def of(*kinds: str) -> list[tuple[object, ...]]:
        names = ("at", "until", "from_maar", "to_maar", "prefix")
        rows = [row for row in found.rows if row[column["event"]] in kinds]
        return [tuple(row[column[name]] for name in names) for row in rows]

    def clock(minutes: int) -> str:
        return f"2027-01-15T08:{minutes:02}:00.000000Z"

    assert of("handover") == [
        (clock(0), clock(10), None, "maar1", None),
        (clock(10), clock(20), "maar1", "maar2", None),
        (clock(20), None, "maar2", "maar1", None),
    ]
    assert of("deprecated") == [
        (clock(10), None, None, None, HOME),
        (clock(10), None, None, None, ADDRESS),
        (clock(10), None, None, None, DELEGATED),
        (clock(20), None, None, None, AWAY),
    ]
    assert len(of("assigned")) == 7


def test_trace_of_a_merged_node_has_both_lives(store: SqlStore) -> None:
    found = audit.trace(store, duid(3))
    assert [row[2] for row in found.rows] == ["handover", "assigned", "reclaimed", "assigned"]
    assert audit.trace(store, duid(9)).rows == ()


def test_anchors(store: SqlStore) -> None:
    found = audit.anchors(store)
    assert found.columns[:7] == (
        "anchor",
        "prefix",
        "kind",
        "state",
        "serving",
        "node",
        "identities",
    )
    assert [row[:5] for row in found.rows] == [
        ("maar1", HOME, "link", "active", "maar1"),
        ("maar1", ADDRESS, "address", "active", "maar1"),
        ("maar1", SHARED, "link", "active", "maar1"),
        ("maar1", DELEGATED, "delegated", "active", "maar1"),
        ("maar2", AWAY, "link", "deprecated", "maar1"),
    ]
    assert [row[6] for row in audit.anchors(store, "maar2").rows] == [ONE]
    with store.administration() as connection:  # what has ended is anchored nowhere
        connection.execute(
            update(tables.binding)
            .where(tables.binding.c.anchor_id == 2)
            .values(state="ended", ended_at=T0, reusable_at=T0)
        )
    assert audit.anchors(store, "maar2").rows == ()
    assert audit.anchors(store, "maar3").rows == ()


def test_handovers(store: SqlStore) -> None:
    found = audit.handovers(store)
    assert [row[:3] for row in found.rows] == [
        (None, "maar1", 3),
        ("maar1", "maar2", 1),
        ("maar2", "maar1", 1),
    ]
    period = audit.handovers(store, T0 + 10 * MINUTE, T0 + 20 * MINUTE)  # up to, not including
    assert [row[:3] for row in period.rows] == [("maar1", "maar2", 1)]


# --- by an index ---


@pytest.mark.parametrize(
    ("name", "parameters", "index"),
    [
        ("who_had", {"address": "2001:db8::1", "at": T0}, "history_prefix"),
        ("trace", {"node": str(duid(1))}, "history_node"),
        ("anchors", {"maar": "maar1"}, "binding_anchor"),
        ("handovers", {"since": T0, "until": T0 + 1}, "history_handover"),
    ],
)
def test_each_question_goes_by_an_index(
    on_sqlite: SqlStore, name: str, parameters: dict[str, audit.Parameter], index: str
) -> None:
    with reading(on_sqlite.engine) as connection:
        sql = "EXPLAIN QUERY PLAN " + audit.question(name)
        plan = [row[3] for row in connection.exec_driver_sql(sql, parameters)]
    assert any(step.startswith("SEARCH") and index in step for step in plan)
    # What is walked are the question itself and the few MAARs, never a table that grows.
    walked = [step.split()[1] for step in plan if step.startswith("SCAN")]
    assert not {"h", "b", "n", "i", "e", "v", "history", "binding", "mobile_node"} & set(walked)


# --- as a person runs it ---


@pytest.mark.needs("sqlite3")
@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        (
            "who_had",
            {"address": "'2001:db8:100:1::99'", "at": "'2027-01-15T09:12:00+01:00'"},
            f"{HOME}|link|1|{ONE}|2027-01-15T08:00:00.000000Z|2027-01-15T09:00:00.000000Z|deprecated|maar1|maar2",
        ),
        ("trace", {"node": "'eui48:02:00:00:00:00:01'"}, None),
        ("anchors", {"maar": "NULL"}, None),
        ("handovers", {"since": "'2027-01-15T08:10:00Z'", "until": "NULL"}, "maar1|maar2|1|"),
    ],
)
def test_in_the_sqlite3_shell(
    on_sqlite: SqlStore, tmp_path: Path, name: str, parameters: dict[str, str], line: str | None
) -> None:
    script = ["." + f'parameter set :{key} "{value}"' for key, value in parameters.items()]
    script.append(audit.question(name))
    done = subprocess.run(
        ["sqlite3", "-bail", str(tmp_path / "cmd.sqlite")],
        input="\n".join(script),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    if line is not None:
        assert any(each.startswith(line) for each in lines)


@pytest.mark.parametrize(
    ("at", "found"),
    [
        ("2027-01-15T08:14:59.999999Z", True),
        ("2027-01-15T08:14:59.9996Z", True),  # not rounded to the next millisecond
        ("2027-01-15T09:14:59.9999+01:00", True),
        ("2027-01-15T08:15:00.000Z", False),
        ("2027-01-15T08:05Z", True),
        ("2027-01-15T08:04:59.999999Z", False),
    ],
)
def test_a_time_in_text_is_exact(store: SqlStore, at: str, found: bool) -> None:
    """As a person writes it in the sqlite3 shell; SHARED is node 2's from 08:05 to 08:15."""
    assert len(audit.ask(store, "who_had", address=SHARED, at=at).rows) == found


def test_a_time_without_a_zone_is_utc_on_sqlite(on_sqlite: SqlStore) -> None:
    at = "2027-01-15 08:14:59.9999999"
    assert len(audit.ask(on_sqlite, "who_had", address=SHARED, at=at).rows) == 1


def test_a_period_in_text_is_exact(store: SqlStore) -> None:
    def count(since: str | None, until: str | None) -> int:
        return len(audit.ask(store, "handovers", since=since, until=until).rows)

    assert count("2027-01-15T08:09:59.9999Z", "2027-01-15T08:10:00.000001Z") == 1
    assert count("2027-01-15T08:10:00Z", "2027-01-15T08:10:00.0004Z") == 1
    assert count("2027-01-15T08:10:00.0004Z", "2027-01-15T08:10:00.0009Z") == 0
    assert count(None, "2027-01-15T08:10:00.0000Z") == 1  # the first attach


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("who_had", {"address": SHARED, "at": "noon"}, "noon"),
        ("who_had", {"address": SHARED, "at": "2027-01-45T08:00:00Z"}, "2027-01-45"),
        ("who_had", {"address": SHARED, "at": "2461421"}, "2461421"),  # no Julian days
        ("who_had", {"address": SHARED, "at": None}, "NULL"),  # not set in the shell
        ("who_had", {"address": "::1", "at": "noon"}, "noon"),  # also where nobody had it
        *(
            ("who_had", {"address": wrong, "at": T0}, "NULL" if wrong is None else wrong)
            for wrong in (
                *("10.0.0.1", "::g", "1:2:3", "1:2:3:4:5:6:7:8:9", "::1::", "12345::", "me"),
                *("2001:db8::/129", "2001:db8::/x", "2001:db8::/", "", None),
            )
        ),
        ("handovers", {"since": "noon", "until": None}, "noon"),
        ("handovers", {"since": None, "until": "2027"}, "2027"),
    ],
)
def test_what_is_no_time_and_no_address_is_an_error(
    on_sqlite: SqlStore, name: str, parameters: dict[str, audit.Parameter], message: str
) -> None:
    """An empty answer would say that nobody had it."""
    with pytest.raises(StoreError, match=f"is no .*{message}"):
        audit.ask(on_sqlite, name, **parameters)


@pytest.mark.needs("sqlite3")
@pytest.mark.usefixtures("on_sqlite")
def test_views_are_readable(tmp_path: Path) -> None:
    def shell(sql: str) -> str:
        command = ["sqlite3", "-bail", str(tmp_path / "cmd.sqlite"), sql]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert shell(f"SELECT state, anchor, valid_until FROM bindings WHERE prefix = '{HOME}'") == (
        "active|maar1|2027-01-15T09:00:00Z"
    )
    assert shell("SELECT identities, serving FROM nodes WHERE node_id = 1") == f"{ONE}|maar1"
    assert shell("SELECT at, event, to_maar FROM events ORDER BY id LIMIT 1") == (
        "2027-01-15T08:00:00.000000Z|handover|maar1"
    )
    assert shell("SELECT maar, kind, prefix, size, taken FROM pools LIMIT 1") == (
        "maar1|link|2001:db8:100::/61|8|2"
    )
    assert shell("SELECT name, endpoint, links FROM maars LIMIT 1") == (
        "maar1|2001:db8:ffff::1|2001:db8:aaaa:1::/64"
    )


# --- what people type ---


def test_times() -> None:
    assert audit.parse_time("now", T0) == T0
    assert audit.parse_time("-2h", T0) == T0 - 120 * MINUTE
    assert audit.parse_time("2027-01-15T08:00:00Z", 0) == T0
    assert audit.parse_time("2027-01-15 09:00:00.000001+01:00", 0) == T0 + 1
    for wrong in ("2027-01-15T08:00:00", "yesterday", "-2", "-2y", ""):
        with pytest.raises(ValueError, match=r"zone|duration"):
            audit.parse_time(wrong, T0)


@pytest.mark.parametrize(
    ("text", "subtype", "value"),
    [
        ("02:00:5e:00:53:01", IdentitySubtype.EUI48, bytes.fromhex("02005e005301")),
        ("02-00-5E-00-53-01", IdentitySubtype.EUI48, bytes.fromhex("02005e005301")),
        ("02:00:5e:ff:fe:00:53:01", IdentitySubtype.EUI64, bytes.fromhex("02005efffe005301")),
        ("03:00:5e:00:53:01", IdentitySubtype.EUI48, bytes.fromhex("03005e005301")),
        ("0003000102005e005301", IdentitySubtype.DUID, bytes.fromhex("0003000102005e005301")),
        (
            "00:03:00:01:02:00:5e:00:53:01",
            IdentitySubtype.DUID,
            bytes.fromhex("0003000102005e005301"),
        ),
        ("duid:00030001aa", IdentitySubtype.DUID, bytes.fromhex("00030001aa")),
        ("user@example.net", IdentitySubtype.NAI, b"user@example.net"),
        ("nai:user@example.net", IdentitySubtype.NAI, b"user@example.net"),
    ],
)
def test_nodes(text: str, subtype: int, value: bytes) -> None:
    assert audit.parse_node(text) == Identity(subtype, value)


def test_no_nodes() -> None:
    for wrong in ("", "xyz", "duid:zz", "00"):
        with pytest.raises(WireError):
            audit.parse_node(wrong)
