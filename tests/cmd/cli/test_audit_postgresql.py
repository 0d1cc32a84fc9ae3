"""The questions of schema/audit/postgresql: by an index, in psql, and by a role that may do nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from dhcp_cmd import audit
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import SqlStore
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.migrate import schema_files
from dmm_wire.address import parse_address
from lab.postgres import ROLE
from tests.cmd.cli.commuter import MINUTE, commuter
from tests.cmd.store import databases
from tests.cmd.store.domain import T0, duid, opened

pytestmark = pytest.mark.needs("postgres", "psql")

HOME = "2001:db8:100:1::/64"
PEER = parse_address("2001:db8::1")
ONE = "duid:00030001000000000001 eui48:02:00:00:00:00:01"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with opened("postgresql", tmp_path) as made:
        commuter(made)
        yield made


def psql(store: SqlStore, *commands: str, role: str = ROLE, **variables: str) -> list[str]:
    """What psql prints, a line for each row. Raises CalledProcessError when it fails."""
    command = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", role]
    command += ["-h", str(databases.server().directory), str(store.engine.url.database)]
    script = [f"\\set {name} '{value}'" for name, value in variables.items()]
    done = subprocess.run(
        command, input="\n".join([*script, *commands]), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


# --- by an index ---

_MANY = (
    "INSERT INTO mobile_node (id, generation, visit_since) SELECT 100 + i, 1, now()",
    "INSERT INTO node_identity (node_id, subtype, value, text) SELECT 100 + i, 1, 'x', 'nai:' || i",
    "INSERT INTO binding SELECT '3fff::'::inet + i, 128, 'delegated', 100 + i, 1, 2, 4, 'active', now(), now(), now()",
    (
        "INSERT INTO history (at, recorded_at, type, node_id, cause, prefix, prefix_length, kind, anchor_id)"
        " SELECT now() + i * interval '1 s', now(), 'assigned', 100 + i, 'x', '3fff::'::inet + i, 128, 'delegated', 2"
    ),
    (
        "INSERT INTO history (at, recorded_at, type, node_id, cause, from_maar_id)"
        " SELECT now() + i * interval '1 s', now(), 'handover', 100 + i, 'x', 2"
    ),
)


@pytest.mark.parametrize(
    ("name", "parameters", "index"),
    [
        ("who_had", {"address": "2001:db8:100:1::1", "at": T0}, "history_prefix"),
        ("who_had", {"address": "2001:db8::/32", "at": T0}, "history_prefix"),
        ("trace", {"node": str(duid(1))}, "history_node"),
        ("anchors", {"maar": "maar1"}, "binding_anchor"),
        ("handovers", {"since": T0, "until": T0 + MINUTE}, "history_handover"),
    ],
)
def test_each_question_goes_by_an_index(
    store: SqlStore, name: str, parameters: dict[str, audit.Parameter], index: str
) -> None:
    """In a database that is large enough for it to matter."""
    with store.administration() as connection:
        for statement in _MANY:
            connection.execute(text(f"{statement} FROM generate_series(1, 20000) i"))
        connection.execute(text("ANALYZE"))
    asked = audit._PSQL_PARAMETER.sub(r"%(\1)s", audit.question(name, "postgresql"))
    values = {key: audit._psql_text(value) for key, value in parameters.items()}
    with reading(store.engine) as connection:
        plan = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {asked}", values)]
    assert any(index in step for step in plan), "\n".join(plan)
    walked = {step.split("Seq Scan on ")[1].split()[0] for step in plan if "Seq Scan on" in step}
    assert not {"history", "binding", "node_identity"} & walked, "\n".join(plan)


# --- as a person runs it ---


@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        (
            "who_had",
            {"address": "2001:db8:100:1::99", "at": "2027-01-15T09:12:00+01:00"},
            f"{HOME}|link|1|{ONE}|2027-01-15T08:00:00.000000Z|2027-01-15T09:00:00.000000Z|deprecated|maar1|maar2",
        ),
        ("trace", {"node": "eui48:02:00:00:00:00:01"}, "2027-01-15T08:00:00.000000Z|"),
        ("anchors", {"maar": ""}, f"maar1|{HOME}|link|active|maar1|1|{ONE}|"),
        ("handovers", {"since": "2027-01-15T08:10:00Z", "until": ""}, "maar1|maar2|1|"),
    ],
)
def test_in_psql(store: SqlStore, name: str, parameters: dict[str, str], line: str) -> None:
    lines = psql(store, audit.question(name, "postgresql"), **parameters)
    assert len(lines) >= 2
    assert any(each.startswith(line) for each in lines), lines


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("who_had", {"address": HOME, "at": "noon"}),
        ("who_had", {"address": HOME, "at": ""}),
        ("who_had", {"address": "::1", "at": "2027-01-45T08:00:00Z"}),
        *(
            ("who_had", {"address": wrong, "at": "2027-01-15T08:00:00Z"})
            for wrong in ("10.0.0.1", "::g", "1:2:3", "2001:db8::/129", "2001:db8::/x", "me", "")
        ),
        ("handovers", {"since": "noon", "until": ""}),
    ],
)
def test_what_is_no_time_and_no_address_is_an_error(
    store: SqlStore, name: str, parameters: dict[str, str]
) -> None:
    """An empty answer would say that nobody had it."""
    with pytest.raises(StoreError, match=r"invalid input syntax|out of range"):
        audit.ask(store, name, **parameters)
    with pytest.raises(subprocess.CalledProcessError):
        psql(store, audit.question(name, "postgresql"), **parameters)


def test_views_are_readable(store: SqlStore) -> None:
    utc = "SET TimeZone = 'UTC';"
    query = "SELECT state, anchor, valid_until FROM bindings WHERE prefix >>= '2001:db8:100:1::7' AND kind = 'link';"
    assert psql(store, utc, query)[1:] == ["active|maar1|2027-01-15 09:00:00+00"]
    assert psql(store, "SELECT identities, serving FROM nodes WHERE node_id = 1;") == [
        f"{ONE}|maar1"
    ]
    query = "SELECT at, event, to_maar, prefix FROM events ORDER BY id LIMIT 2;"
    assert psql(store, utc, query)[1:] == [
        "2027-01-15 08:00:00+00|handover|maar1|",
        f"2027-01-15 08:00:00+00|assigned||{HOME}",
    ]
    assert psql(
        store, "SELECT maar, kind, prefix, size, taken FROM pools ORDER BY pool_id LIMIT 1;"
    ) == ["maar1|link|2001:db8:100::/61|8|2"]
    assert psql(store, "SELECT name, endpoint, links FROM maars ORDER BY maar_id LIMIT 1;") == [
        "maar1|2001:db8:ffff::1|2001:db8:aaaa:1::/64"
    ]


# --- who may do what ---


@pytest.fixture
def roles(store: SqlStore) -> Iterator[None]:
    """As roles.sql makes them, in a server that other tests use too."""
    psql(store, "CREATE ROLE t_cmd LOGIN; CREATE ROLE t_audit LOGIN;")
    script = (schema_files() / "postgresql" / "roles.sql").read_text(encoding="utf-8")
    psql(store, script, cmd="t_cmd", auditor="t_audit")
    yield
    psql(store, "DROP OWNED BY t_cmd, t_audit; DROP ROLE t_cmd, t_audit;")


@pytest.mark.usefixtures("roles")
def test_an_auditor_reads_and_no_more(store: SqlStore) -> None:
    as_auditor = {"role": "t_audit"}
    parameters = {"address": "2001:db8:100:1::99", "at": "2027-01-15T09:12:00+01:00"}
    assert (
        len(psql(store, audit.question("who_had", "postgresql"), **as_auditor, **parameters)) == 2
    )
    for view in ("maars", "pools", "nodes", "bindings", "events"):
        assert psql(store, f"SELECT count(*) > 0 FROM {view};", **as_auditor) == ["t"]
    for forbidden in (
        "SELECT hash_key FROM domain;",
        "DELETE FROM binding;",
        "INSERT INTO prune (before, started_at) VALUES (now(), now());",
        "UPDATE maar SET name = 'x';",
        "CREATE TABLE mine (x integer);",
    ):
        with pytest.raises(subprocess.CalledProcessError):
            psql(store, forbidden, **as_auditor)


@pytest.mark.usefixtures("roles")
def test_the_cmds_role_serves_and_cannot_rewrite_history(store: SqlStore, tmp_path: Path) -> None:
    from dhcp_cmd.service import Cmd
    from dhcp_cmd.store import admin, open_store
    from dhcp_cmd.store.marks import SqlMarks
    from tests.cmd.core.world import Host, M, World, na, pd

    url = store.engine.url.update_query_dict({"user": "t_cmd"}).render_as_string()
    restricted = open_store(url)
    world = World(admin.read_domain(restricted))
    world.cmd = Cmd(restricted, world.settings)
    host = Host(1)
    for maar, kind in ((1, M.REQUEST), (2, M.REBIND), (2, M.RENEW), (1, M.RELEASE)):
        assert world.ask(host, maar, kind, na(), pd()).outcome in ("reply", "silent")
    for _ in range(3):
        world.later(100_000)
        world.cmd.reap(world.now, 1000)
    assert world.cmd.outcomes["internal-error"] == 0
    marks = SqlMarks(restricted, "2001:db8::53")
    for mark in (T0, T0 + 1):
        marks.write({PEER: mark})
    assert marks.read() == {PEER: T0 + 1}
    for forbidden in (
        "DELETE FROM history;",
        "UPDATE history SET cause = 'x';",
        "INSERT INTO prune (before, started_at) VALUES (now(), now());",
        "UPDATE maar SET name = 'x';",
        "ALTER TABLE history DISABLE TRIGGER ALL;",
        "DELETE FROM replay_mark;",
    ):
        with pytest.raises(subprocess.CalledProcessError):
            psql(store, forbidden, role="t_cmd")
    restricted.close()
