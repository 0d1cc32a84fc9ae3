"""The bars of a handover, and the files that a run leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import attaching, relays
from bench.attach_clock import Step
from bench.attaching import Attach, Attaches, Trigger
from bench.crowd_clock import Moved, Word
from bench.crowd_moves import Result
from bench.goodput import Goodput, Goodputs, delivered
from bench.handover import Findings
from bench.handover_report import Files, as_json, as_markdown, tables
from bench.output import marker
from lab.netns import LabError


def attach(trigger: Trigger, frame: float, share: float, opened: float) -> Attach:
    times = dict.fromkeys(Step, frame) | {Step.SET: frame + share, Step.OPEN: opened}
    return Attach(trigger, 1, times)


def crowd(last: float, wrong: Sequence[str] = (), nodes: int = 1000) -> Result:
    times = [last / 2] * (nodes - 1) + [last]
    words = dict.fromkeys(Word, [last / 4] * nodes)
    used = {"CMD": 0.3, "S-MAAR": 0.7, "anchor": 0.4, "generator": 0.2}
    moved = Moved(nodes, times, times, times, last, words, 0.01, {})
    return Result("away", nodes, [moved], [used], list(wrong))


def findings() -> Findings:
    found = Findings({"CPU": "one"})
    for trigger in Trigger:
        for number in range(20):
            found.attaches.add(attach(trigger, 0.018, 0.004 + number / 10_000, 0.023))
    found.goodputs = Goodputs(
        [Goodput("down", rate < 1e9, rate) for rate in (1e9, 0.95e9, 0.5e9, 0.96e9)]
    )
    found.crowds.domain = [crowd(1.4)]
    found.relays = [
        relays.Figures("relay-maar", 2000, 1.0, 0.5, 0),
        relays.Figures("dhcrelay", 1000, 1.0, 0.5, 0),
    ]
    found.programs = [0.4, 0.3, 0.5]
    return found


def test_all_bars_are_there() -> None:
    bars = {bar.what: bar for bar in findings().bars()}
    assert len(bars) == 2 + 2 * len(Trigger) + 1 + 1 + 2 + 1 + 1
    missed = [bar for bar in bars.values() if not bar.met]
    # 23 ms where a host that sends is to take 10
    assert [(bar.found, bar.wanted) for bar in missed] == [("23.0 ms (13.0 ms over)", "≤ 10 ms")]
    assert bars["goodput through the tunnel, down, of plain forwarding"].found == "0.950"
    assert bars["1,000 nodes at once, away: packets both ways for the last one"].found == "1.40 s"


def test_what_is_missed_says_by_how_much() -> None:
    found = findings()
    found.goodputs = Goodputs([Goodput("up", False, 1e9), Goodput("up", True, 0.8e9)])
    found.crowds.domain = [crowd(1.75, wrong=["one"])]
    found.relays[1].packets = 8000
    said = {bar.found for bar in found.bars() if not bar.met}
    assert said >= {"0.800 (0.100 short)", "1.75 s (0.25 s over)", "1", "0.25 (0.25 short)"}


def test_a_move_that_never_ended_is_told() -> None:
    attaches = Attaches()
    attaches.add(Attach(Trigger.RS, 1, {Step.FRAME: 0.001}))
    (bar,) = attaching.bars(attaches)
    assert (bar.found, bar.met) == ("1 of 1", False)
    assert attaches.share(Trigger.RS) is None
    text = as_markdown(Findings({}, attaches), "handover.png")
    assert "| Router Solicitation | 1 | never | never |" in text


def test_files(tmp_path: Path) -> None:
    docs = tmp_path / "docs.md"
    begin, end = (marker("handover", each) for each in ("begin", "end"))
    docs.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    found = findings()
    Files(tmp_path / "results", docs).finish(found)
    text = docs.read_text()
    assert text.startswith(f"before\n{begin}\n")
    assert "old" not in text
    assert "(handover.png)" in text
    for name in ("handover.png", "results/handover.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n")
    read = json.loads((tmp_path / "results" / "handover.json").read_text())
    assert read == json.loads(as_json(found))
    assert len(read["moves"]) == 20 * len(Trigger)
    assert read["triggers"]["mld"]["share"]["p95"] == pytest.approx(0.0058)
    assert len(tables(found)) == 6


def test_what_iperf3_says() -> None:
    assert delivered('{"end": {"sum_received": {"bits_per_second": 5e8}}}') == 5e8
    with pytest.raises(LabError, match="refused"):
        delivered('{"error": "unable to connect: refused", "end": {}}')
    with pytest.raises(LabError, match="no such thing"):
        delivered("no such thing")


def test_the_maars_own_share_is_without_the_cmds() -> None:
    whole = {
        Step.FRAME: 0.001,
        Step.QUERY: 0.002,
        Step.ANSWER: 0.0045,
        Step.SET: 0.007,
        Step.OPEN: 0.008,
    }
    move = Attach(Trigger.HOOK, 1, whole)
    assert move.share == pytest.approx(0.006)
    assert move.alone == pytest.approx(0.0035)
    del whole[Step.ANSWER]
    assert Attach(Trigger.HOOK, 1, whole).alone is None
