"""Skips, loudly, what this machine cannot run: a test marked `root` without root, one that `needs` a program it lacks.

The run's last lines say how many tests were not run and why, so that nobody takes a green run for a complete one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter

import pytest

NOT_RUN = "not run: "
"""How the reason of every skip made here begins."""


def why_no_namespaces() -> str | None:
    """None if this process may make network namespaces, else what is in the way."""
    if os.geteuid() != 0:
        return "needs root"
    attempt = ["unshare", "--net", "--mount", "true"]
    if shutil.which(attempt[0]) is None:
        return "needs unshare (util-linux)"
    if subprocess.run(attempt, capture_output=True, check=False).returncode != 0:
        return "needs the right to make network namespaces (CAP_SYS_ADMIN)"
    return None


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist registers this one; without it (-p no:xdist) the mark would be an unknown one.
    config.addinivalue_line("markers", "xdist_group(name): tests of one name run on one worker")


def root_group(item: pytest.Item) -> str:
    """Which tests marked `root` run on the same worker, one after the other."""
    parts = item.nodeid.partition("::")[0].split("/")
    return "/".join(parts if parts[1:2] == ["lab"] else parts[:2])


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rooted = [item for item in items if item.get_closest_marker("root")]
    obstacle = why_no_namespaces() if rooted else None
    for item in rooted:
        # They mostly wait, for clients and timers. Of the labs, whose daemons are many, each file is one worker's; of
        # the others each folder, because they measure time and share names.
        item.add_marker(pytest.mark.xdist_group(root_group(item)))
        if obstacle:
            item.add_marker(pytest.mark.skip(reason=NOT_RUN + obstacle))
    # What takes longest begins first, and what is quick fills the gaps in the end.
    items.sort(
        key=lambda item: (not item.get_closest_marker("root"), "tests/lab" not in item.nodeid)
    )
    for item in items:
        programs = [name for mark in item.iter_markers("needs") for name in mark.args]
        missing = [name for name in programs if shutil.which(name) is None]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{NOT_RUN}needs {', '.join(missing)}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, why = reason.partition(NOT_RUN)
        if found:
            reasons[why] += 1
    if not reasons:
        return
    terminalreporter.section("NOT RUN", sep="!", yellow=True, bold=True)
    for why, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} test{'s' if count > 1 else ''} not run: {why}", yellow=True)
    terminalreporter.line(
        "./dev test, as root on Debian or Ubuntu, gets what is missing and runs them.", yellow=True
    )
