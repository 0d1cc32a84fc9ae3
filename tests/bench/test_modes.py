"""What is expected of the modes, and how a run is told, without a network."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.handover_lab import PBA_GOES_TO, Handover
from bench.modes import (
    FORMULAS,
    MODES,
    Duel,
    Formula,
    Point,
    Results,
    duel,
    expected_messages,
    turns,
)
from bench.modes_report import LEGEND, as_json, as_markdown, sections, tables, write
from bench.output import marker
from bench.phase_clock import Phase

D, M = 0.02, 0.003


def handover(mode: str, opened: float | None, delay: float = D, anchors: int = 1) -> Handover:
    seconds = dict.fromkeys(Phase, 0.001)
    del seconds[Phase.OPEN]
    if opened is not None:
        seconds[Phase.OPEN] = opened
    return Handover(mode, delay, anchors, seconds, expected_messages(mode, anchors), (delay,), 3)


@pytest.fixture
def results() -> Results:
    made = Results({"CPU": "one"})
    for opened in (0.041, 0.043, 0.045):
        for number, mode in enumerate(MODES):
            made.add(handover(mode, opened + number / 100))
    made.add(handover("relay", None, 0.005, 8))
    return made


def test_the_rfc_says_that_proxy_beats_locator_beats_relay() -> None:
    for phase in (Phase.KNOWN, Phase.OPEN):
        proxy, locator, relay = (
            FORMULAS[mode][phase].seconds(D, M) for mode in ("proxy", "locator", "relay")
        )
        assert proxy < locator < relay
        assert relay == pytest.approx(4 * D + (M if phase == Phase.OPEN else 0))


@pytest.mark.parametrize("mode", MODES)
def test_no_formula_contradicts_another_one(mode: str) -> None:
    at = {phase: FORMULAS[mode][phase].seconds(D, M) for phase in Phase}
    assert at[Phase.CLIENT] == at[Phase.REPLY]
    assert at[Phase.OPEN] == max(at[Phase.DOWN], at[Phase.UP])
    # A packet to the node comes by the P-MAAR's tunnel; nothing is known before the PBU in locator and relay.
    assert at[Phase.DOWN] >= max(at[Phase.UPDATES], at[Phase.KNOWN])
    assert at[Phase.UP] == pytest.approx(at[Phase.KNOWN] + M)
    to_cmd, to_serving = PBA_GOES_TO[mode]
    answers = [D] * to_cmd + [M] * to_serving
    assert at[Phase.ACKNOWLEDGED] == pytest.approx(at[Phase.UPDATES] + max(answers))


def test_formulas_are_written_as_people_write_them() -> None:
    assert [str(each) for each in (Formula(2), Formula(1, 1), Formula(2, 2))] == [
        "2 D",
        "D + M",
        "2 D + 2 M",
    ]


def test_messages_of_a_handover() -> None:
    once = {"Rebind": 1, "Reply": 1, "Relay-forward": 1, "Relay-reply": 1}
    assert expected_messages("proxy", 2) == Counter(once | {"PBU": 2, "PBA": 2})
    assert expected_messages("locator", 8) == Counter(once | {"PBU": 8, "PBA": 16})


def test_each_turn_begins_with_another_one() -> None:
    assert list(turns(["a", "b", "c"], 4)) == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_duels_are_of_handovers_made_side_by_side() -> None:
    one = [handover("proxy", each) for each in (0.04, 0.05, None, 0.04)]
    other = [handover("locator", each) for each in (0.05, 0.04, 0.05, None)]
    assert duel("proxy", "locator", one, other) == Duel("proxy", "locator", 1, 2)
    assert duel("proxy", "locator", one[:1], one[:1]).won == 0


def test_results_by_point_and_mode(results: Results) -> None:
    far, near = Point(D, 1), Point(0.005, 8)
    assert results.points() == [near, far]
    assert results.modes(near) == ["relay"]
    assert results.modes(far) == list(MODES)
    opened = results.phase(far, "locator", Phase.OPEN)
    assert opened is not None
    assert (opened.count, opened.median, opened.worst) == (3, 0.063, 0.065)
    assert results.phase(near, "relay", Phase.OPEN) is None
    assert [each.anchors for each in results.incomplete()] == [8]
    assert results.messages(far, "locator") == expected_messages("locator", 1)
    assert [(each.won, each.of) for each in results.duels(far)] == [(3, 3)] * 3
    assert results.duels(near) == []


def test_every_row_has_a_cell_for_each_column(results: Results) -> None:
    for title, columns, rows, text in sections(results):
        found = list(rows)
        assert found, title
        assert {len(row) for row in found} == {len(columns)}, title
        assert text < len(columns) + 1
    assert all(table.row_count for table in tables(results))


def test_what_was_never_seen_is_said(results: Results) -> None:
    text = as_markdown(results)
    assert "| 20 | 1 | locator | 40 → 1.0 |" in text
    assert "40 → 63.0 |" in text
    assert "| 5 | 8 | relay | 0 of 1 |" in text
    assert "| never |" in text
    assert "Not all phases were seen in 1 of 13 handovers." in text
    assert all(line in text for line in LEGEND)


def test_what_the_cmd_held_back_is_said(results: Results) -> None:
    results.held_back = {"proxy": 0, "locator": 12}
    text = as_markdown(results)
    assert "The CMD held 12 PBUs back (MAX_UPDATE_RATE): what mode locator took" in text
    assert text.count("held") == 1
    assert json.loads(as_json(results))["held_back"] == {"proxy": 0, "locator": 12}


def test_files_and_the_section_of_the_document(results: Results, tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    other = f"{marker('cmd', 'begin')}\nas it is\n{marker('cmd', 'end')}\n"
    begin, end = marker("modes", "begin"), marker("modes", "end")
    document.write_text(f"{other}\n{begin}\nold\n{end}\nafter\n")
    write(results, tmp_path / "out", document)
    text = (tmp_path / "out" / "modes.md").read_text()
    assert document.read_text() == f"{other}\n{begin}\n\n{text}\n{end}\nafter\n"
    found = json.loads((tmp_path / "out" / "modes.json").read_text())
    point = next(each for each in found["points"] if each["mode"] == "relay" and each["delay"] == D)
    assert point["expected"]["known"] == 4 * D
    assert point["seconds"]["open"]["median"] == pytest.approx(0.073)
    assert (point["handovers"], point["incomplete"], point["sent_back"]) == (3, 0, 3)
    assert len(found["handovers"]) == 13
    assert found["order"][0] == {
        "delay": D,
        "anchors": 1,
        "faster": "direct",
        "slower": "proxy",
        "won": 3,
        "of": 3,
    }
    assert [each["median"] for each in found["delays"]] == [0.005, D]


def test_a_document_without_the_lines_is_left_alone(results: Results, tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("nothing\n")
    with pytest.raises(ValueError, match="modes --update-docs: begin"):
        write(results, tmp_path, document)
    assert document.read_text() == "nothing\n"
