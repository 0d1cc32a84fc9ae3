"""A thousand nodes that move between two real MAARs at once: make before break, and every one ends where it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench import cli, maars_alone
from bench.kernel_events import Monitor
from bench.maars import Site
from bench.maars_crowd import AWAY, HOME, Crowd, Moved
from bench.nodes import prefix
from lab import netns
from lab.command import MISTAKE

PREFIX = f"crowd{os.getpid()}"
NODES = range(1, 1001)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(PREFIX) as made:
        made.start()
        yield made


def assert_right(moved: Moved) -> None:
    assert moved.wrong == []
    assert moved.gaps == 0, "a node's route was taken away, if for a moment"
    assert moved.early == 0, "packets were sent to where nobody could take them yet"


@pytest.mark.root
@pytest.mark.slow
def test_a_thousand_nodes_come_go_away_and_come_back_and_none_is_lost(site: Site) -> None:
    with closing(Crowd(site, NODES)) as crowd:
        assert_right(crowd.move(HOME))
        assert crowd.reached() == len(NODES)
        for to in (AWAY, HOME, AWAY):
            moved = crowd.move(to)
            assert_right(moved)
            assert crowd.reached() == len(NODES)
            assert 0 < min(moved.took) <= max(moved.took) <= moved.last
            assert moved.acknowledged > 0
        for maar in site.maars.values():
            counters = maar.status()["counters"]
            bad = [name for name in counters if name.startswith(("send-", "internal"))]
            assert not bad, maar.complaints()
        # What is wrong is noticed.
        lost = str(prefix(HOME, 7))
        site.maars[AWAY].kill()
        netns.ip("-6", "route", "del", lost, namespace=site.maars[AWAY].namespace)
        assert list(crowd._wrong(AWAY)) == [f"{lost} is not with its node"]
        assert crowd.reached() == len(NODES) - 1


@pytest.mark.root
@pytest.mark.slow
def test_a_thousand_sessions_are_taken_up_again_and_the_kernel_is_left_alone() -> None:
    with Site(f"{PREFIX}r") as site:
        site.start()
        with closing(Crowd(site, NODES)) as crowd:
            crowd.move(HOME)
            crowd.move(AWAY)
            for maar in site.maars.values():
                monitor = Monitor(maar.namespace)
                before = maar.routes(), maar.ruled()
                maar.kill()
                maar.start()
                site.joins(maar)
                assert len(maar.status()["sessions"]) == len(NODES)
                assert (maar.routes(), maar.ruled()) == before
                assert [event for event in monitor.read() if event.address != bytes(16)] == []
                assert maar.complaints() == []
                monitor.close()
            assert crowd.reached() == len(NODES)
            assert_right(crowd.move(HOME))


@pytest.mark.root
@pytest.mark.slow
def test_the_command_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["crowd", "--parts", "maars", "--sizes", "2", "--moves", "3"]
    arguments += ["--output", str(tmp_path), "--prefix", f"{PREFIX}b"]
    assert cli.run(arguments) == 0, capsys.readouterr()
    found = json.loads((tmp_path / "crowd.json").read_text())["maars"]
    assert [(each["move"], each["nodes"]) for each in found] == [
        ("first attach", 2),
        ("away", 2),
        ("back", 2),
    ]
    assert all(each["wrong"] == [] and min(each["took"]) > 0 for each in found)
    assert len(found[1]["took"]) == 2 * 3
    assert found[1]["kernel"] > 0
    assert "2" in capsys.readouterr().out
    assert not [name for name in netns.names() if name.startswith(f"{PREFIX}b")]


@pytest.mark.parametrize("mistake", ["--sizes 0", "--sizes 65536", "--sizes many", "--parts all"])
def test_a_mistake_is_one_line(
    mistake: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.run(["crowd", *mistake.split()]) == MISTAKE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [maars_alone.quantile(values, part) for part in (0, 0.5, 0.95, 1)] == [1, 51, 96, 100]
