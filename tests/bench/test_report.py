from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.bars import bars
from bench.measure import Measurement, Usage
from bench.output import BEGIN, END, Files, as_markdown, replaced
from bench.plan import SERVERS
from bench.report import Results, rows, told
from bench.verify import Verdict


def measurement(
    server: str, capacity: float, workload: str = "pd-relayed", size: int = 10_000, **more: object
) -> Measurement:
    made = Measurement(server, workload, size, capacity=capacity, p50=0.0021, p99=0.0099)
    made.at_capacity = Usage(100e-6, 0.0, 50_000_000, 0)
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def results() -> Results:
    made = Results(
        {"serve-sqlite": "serve, SQLite", "pd-relayed": "PD relayed, 4-way"},
        {each.name: each.rival for each in SERVERS},
    )
    made.machine = {"CPU": "one"}
    return made


def test_each_is_compared_with_the_kea_that_has_its_kind_of_database(results: Results) -> None:
    for server, capacity in (
        ("kea-memfile", 8000.0),
        ("serve-sqlite", 8400.0),
        ("kea-postgresql", 1000.0),
        ("serve-postgresql", 5900.0),
        ("ipv6-dhcpd", 400.0),
    ):
        results.add(measurement(server, capacity))
    ratios = {each.server: results.ratio(each) for each in results.measurements}
    assert ratios == {
        "kea-memfile": None,
        "serve-sqlite": 1.05,
        "kea-postgresql": None,
        "serve-postgresql": 5.9,
        "ipv6-dhcpd": 0.05,
    }
    judged = {bar.what: (bar.found, bar.wanted, bar.met) for bar in bars(results)}
    what = "serve, SQLite to Kea, PD relayed, 4-way, 10,000 bound"
    assert judged[what] == ("1.05", "≥ 1", True)
    assert judged["serve-postgresql to Kea, PD relayed, 4-way, 10,000 bound"] == (
        "5.90",
        "≥ 6",
        False,
    )


def test_no_ratio_to_what_was_not_measured(results: Results) -> None:
    results.add(measurement("kea-memfile", 8000, size=100_000))
    results.add(measurement("kea-memfile", 0.0, problem="failed: it"))
    results.add(measurement("serve-sqlite", 8400))
    assert results.ratio(results.measurements[-1]) is None
    assert [bar.what for bar in bars(results)] == [
        "serve, SQLite, PD relayed, 4-way, 10,000 bound: p99 at half of its capacity"
    ]


def test_a_million_nodes_are_compared_with_ten_thousand(results: Results) -> None:
    results.add(measurement("serve-sqlite", 8000))
    more = Usage(100e-6, 0.0, 60_000_000, 0)
    results.add(measurement("serve-sqlite", 6400, size=1_000_000, at_capacity=more))
    capacity, memory, *_ = bars(results)
    assert (capacity.found, capacity.met) == ("0.80", True)
    assert (memory.found, memory.met) == ("1.20", False)


def test_latency_bar(results: Results) -> None:
    results.add(measurement("serve-sqlite", 8000))
    results.add(measurement("serve-sqlite", 8000, workload="handover", p99=0.0101))
    assert [(bar.found, bar.met) for bar in bars(results)] == [("9.9 ms", True), ("10.1 ms", False)]


def test_rows_stand_by_their_traffic(results: Results) -> None:
    beside = Usage(80e-6, 120e-6, 40_000_000, 90_000_000)
    results.add(measurement("kea-memfile", 8000))
    results.add(measurement("kea-memfile", 9000, workload="na-relayed"))
    results.add(measurement("serve-sqlite", 4000, limited_by_generator=True))
    results.add(measurement("serve-postgresql", 5000, at_capacity=beside))
    results.add(measurement("ipv6-dhcpd", 0.0, problem="not served"))
    head = "PD relayed, 4-way"
    assert list(rows(results)) == [
        (head, "kea-memfile", "10,000", "8,000", "", "2.10", "9.90", "100", "50"),
        (head, "serve, SQLite", "10,000", "≥ 4,000", "0.50", "2.10", "9.90", "100", "50"),
        (head, "serve-postgresql", "10,000", "5,000", "", "2.10", "9.90", "80 + 120", "40 + 90"),
        (head, "ipv6-dhcpd", "10,000", "not served", "", "", "", "", ""),
        ("na-relayed", "kea-memfile", "10,000", "9,000", "", "2.10", "9.90", "100", "50"),
    ]


def test_a_line_for_who_watches(results: Results) -> None:
    verdict = Verdict(answered=1234, written=1234)
    results.add(measurement("serve-sqlite", 4000, workload="handover", verified=verdict))
    assert told(results, results.measurements[0]) == (
        "serve, SQLite, handover, 10,000 bound: 4,000/s, p99 9.9 ms; 1,234 replies checked in the database"
    )
    results.add(measurement("ipv6-dhcpd", 0.0, problem="not served"))
    assert told(results, results.measurements[1]).endswith("10,000 bound: not served")


def test_files(results: Results, tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    results.add(measurement("serve-sqlite", 4000, verified=Verdict(answered=7, written=7)))
    results.notes.append("Kea is not there")
    Files(tmp_path / "out", document).finish(results)
    found = json.loads((tmp_path / "out" / "cmd.json").read_text())
    assert found["machine"] == {"CPU": "one"}
    assert found["notes"] == ["Kea is not there"]
    [row] = found["measurements"]
    assert (row["capacity"], row["of_kea"], row["verified"]["answered"]) == (4000, None, 7)
    assert [bar["met"] for bar in found["bars"]] == [True]
    text = (tmp_path / "out" / "cmd.md").read_text()
    assert document.read_text() == f"# Before\n\n{BEGIN}\n\n{text}\n{END}\n\nafter\n"
    assert "| serve, SQLite | 10,000 | 4,000 |" in text
    assert "- Kea is not there\n" in text


def test_the_section_can_be_written_again_and_again(results: Results) -> None:
    text = as_markdown(results)
    once = replaced(f"a\n{BEGIN}\n{END}\nb\n", text)
    assert replaced(once, text) == once
    with pytest.raises(ValueError, match="lacks the lines"):
        replaced("a\n", text)
