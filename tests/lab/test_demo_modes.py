"""`./dev demo --mode ...` as a person runs it: the ladder that it prints is the one of the mode's figure in RFC 8885.

One run for each way to run the CMD and to feed the MAARs; tests/lab/test_modes.py and test_pmip.py have the rest.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.flows import ROOT
from lab.report import WIDTH
from lab.topology import MAAR_PLANS

PREFIX = f"labd{os.getpid()}"
DEMO = [sys.executable, "-m", "lab.demo", "--prefix", PREFIX]
NEEDS = ("dhcpcd", "sqlite3", "setpriv")


class Line(NamedTuple):
    """A message of the printed ladder with the text that goes with it."""

    name: str
    sender: str
    receiver: str
    text: str

    @property
    def way(self) -> tuple[str, str, str]:
        return self[:3]


def ladder(lines: list[str]) -> list[Line]:
    """What a printed ladder says, read from its arrows."""
    head = next(line for line in lines if line.split() == ["ms", "MN", *MAARS, "CMD"])
    parties = {head.index(name) + len(name) // 2: name for name in ("MN", *MAARS, "CMD")}
    width = max(parties) + 4
    found: list[Line] = []
    for line in lines[lines.index(head) + 1 :]:
        if "│" not in line:
            break
        text = " ".join(line[width:].split())
        if arrow := re.search(r"├─*▶│|│◀─*┤", line[:width]):
            ends = parties[arrow.start()], parties[arrow.end() - 1]
            sender, receiver = ends if arrow[0].startswith("├") else ends[::-1]
            found.append(Line(text.split(":")[0], sender, receiver, text))
        elif found and not line[:10].strip():
            found[-1] = found[-1]._replace(text=f"{found[-1].text}; {text}")
    return found


MAARS = tuple(plan.name.upper() for plan in MAAR_PLANS)
ASKED = ("Relay-forward(Information-request)", "MAAR2", "CMD")
TOLD = ("Relay-reply(Reply)", "CMD", "MAAR2")
REGISTERED, ANSWERED = ("PBU", "MAAR2", "CMD"), ("PBA", "CMD", "MAAR2")
UPDATE, AGREED, COPY = ("PBU", "CMD", "MAAR1"), ("PBA", "MAAR1", "CMD"), ("PBA", "MAAR1", "MAAR2")


def is_of_the_domain(line: Line) -> bool:
    """Whether it is a MAAR's question for the domain, or the answer."""
    asks = "Information-request" in line.name and "ATTACHMENT" not in line.text
    return asks or "DOMAIN" in line.text


# Arguments; which figure it is; rows of messages, each after those above.
CASES = {
    "relay": ([], "`dhcp-cmd serve`", 2, [[ASKED], [UPDATE], [AGREED], [TOLD]]),
    "locator": ([], "`dhcp-cmd signal`", 3, [[ASKED], [TOLD, UPDATE], [AGREED, COPY]]),
    "proxy": (
        ["--signalling", "pmip"],
        "`dhcp-cmd signal`",
        4,
        [[REGISTERED], [ANSWERED, UPDATE], [AGREED]],
    ),
}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs(*NEEDS)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", CASES)
def test_the_ladder_is_that_of_the_figure(mode: str, tmp_path: Path) -> None:
    arguments, program, number, rows = CASES[mode]
    measured, packets = tmp_path / "demo.json", tmp_path / "demo.pcapng"
    files = ["--json", str(measured), "--pcap", str(packets)]
    done = subprocess.run(
        [*DEMO, "--mode", mode, "--moves", "1", *arguments, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert not [line for line in lines if len(line) > WIDTH]
    assert any(line.startswith(f"Mode {mode}: ") for line in lines)
    assert any(line.startswith("The CMD is ") and program in line for line in lines)
    move = lines[next(at for at, line in enumerate(lines) if line.startswith("2. to MAAR2")) :]
    said = ladder(move)
    # The move: without what the node says, what a MAAR asks for itself, now and then, and DHCPv6 when all is done.
    between = [line.way for line in said if "MN" not in line.way and not is_of_the_domain(line)]
    signalling = between[: sum(map(len, rows))]
    assert sorted(signalling) == sorted(way for row in rows for way in row)
    places = [[signalling.index(way) for way in row] for row in rows]
    assert all(max(above) < min(below) for above, below in pairwise(places))
    assert "RFC 8885 figure 1 (section 3.1" in done.stdout
    (titled,) = (at for at, line in enumerate(move) if line.startswith("RFC 8885 figure "))
    assert move[titled].startswith(
        f"RFC 8885 figure {number} (section 3.{number}, the CMD as {mode}"
    )
    table = move[titled + 3 : titled + 3 + len(signalling)]
    assert all(
        f"  {sender} → {receiver} {name.partition('(')[0]}  " in f"{row}  "
        for row, (name, sender, receiver) in zip(table, signalling, strict=True)
    )
    times = [float(row.split()[0]) for row in table]
    assert times == sorted(times)
    assert times[0] == 0
    what_they_say(mode, {line.way: line.text for line in reversed(said)})  # each for the first time
    found = json.loads(measured.read_text())
    assert (found["mode"], len(found["moves"])) == (mode, 1)
    assert all(assertion["held"] for assertion in found["assertions"])
    # The whole PBU with its Serving MAAR option is kept.
    assert b"\x44\x10" + MAAR_PLANS[1].endpoint in packets.read_bytes()


def what_they_say(mode: str, texts: dict[tuple[str, str, str], str]) -> None:
    """Flags, options with their numbers, and one generation everywhere."""
    update, agreed = texts[UPDATE], texts[AGREED]
    told = texts[ANSWERED if mode == "proxy" else TOLD]
    assert "flags AHPD" in update
    assert "HNP(22) Pref1" in update
    assert "Serving MAAR(68) T2" in update
    assert "PBA: status 0 accepted" in agreed
    assert "flags PD" in agreed
    assert "HNP(22) Pref1" in agreed
    assert "Serving MAAR(68) T2" in agreed
    (visit,) = re.findall(r"VISIT (\S+), left T1", told)
    for text in (update, agreed):
        assert f"Timestamp(27) {visit}" in text
        assert re.search(r"sequence (\d+)", text)[1] == re.search(r"sequence (\d+)", update)[1]  # type: ignore[index]
    assert f"SIGNALLING {mode}" in told
    if mode == "relay":
        assert "PREVIOUS_MAAR Pref1 at T1" in told
        assert "DMNP(55) Del1" in update
    elif mode == "locator":
        assert "PREVIOUS_MAAR Pref1 at T1, awaited" in told
        assert texts[COPY] == agreed
    else:
        registered = texts[REGISTERED]
        assert "HNP(22) Pref2" in registered
        assert "flags AHPD" in registered
        assert "Serving MAAR" not in registered
        assert "Previous MAAR(67) Pref1 at T1" in told
        assert "HNP(22) Pref2" in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--mode", "relay", "--server", "ipv6-dhcpd"], "cannot hold an answer back"),
        (["--mode", "direct", "--signalling", "pmip"], "needs another mode"),
        (["--mode", "central"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], why: str) -> None:
    done = subprocess.run(
        [*DEMO, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs(*NEEDS)
@pytest.mark.timeout(180)
def test_with_a_router_for_each_anchor(tmp_path: Path) -> None:
    """RFC 8885 section 3.7. Of MAAR3 the operator chose which router it is."""
    measured, packets = tmp_path / "demo.json", tmp_path / "demo.pcapng"
    files = ["--json", str(measured), "--pcap", str(packets)]
    done = subprocess.run(
        [*DEMO, "--router-identity", "dlif", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(measured.read_text())
    assert (found["router_identity"], len(found["moves"])) == ("dlif", 3)
    held = [assertion["what"] for assertion in found["assertions"] if assertion["held"]]
    assert len(held) == len(found["assertions"])
    assert sum("to the S-MAAR, of each anchor" in what for what in held) == 3
    assert "MAAR3 shows itself as MAAR1, MAAR2, MAAR3, the other MAARs as themselves" in held
    chosen = MAAR_PLANS[2].router
    # Both ways of saying it: DLIF_LINK_LOCAL in PREVIOUS_MAAR, and the two options of MAAR3's PBA.
    octets = packets.read_bytes()
    for said in (
        b"\0\6\0\x10" + chosen.link_local + b"\0\7\0\x08\0\1" + chosen.link_layer,
        b"\x45\x10" + chosen.link_local,
        b"\x46\x08\0\0" + chosen.link_layer,
    ):
        assert said in octets
