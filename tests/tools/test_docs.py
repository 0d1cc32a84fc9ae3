"""docs/tools.md: what it says is seen is seen, its filters are filters, its example makes the protocol's PBU."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.house.import_rules import ROOT
from tests.house.test_docs import BLOCK
from tests.tools.tshark import MAAR, PEER, ipv6, run

PAGE = (ROOT / "docs" / "tools.md").read_text()


def block(language: str) -> str:
    [text] = [text for name, text in BLOCK.findall(PAGE) if name == language]
    assert isinstance(text, str)
    return text


def protocols_pbu() -> bytes:
    text = (ROOT / "docs" / "protocol.md").read_text()
    [lines] = [block for _, block in BLOCK.findall(text) if block.startswith("3b 0f 05")]
    octets = re.findall(r"^(?:[0-9a-f]{2} )+", lines, flags=re.MULTILINE)
    return bytes.fromhex("".join(octets))


@pytest.mark.needs("tshark")
def test_the_sample_is_what_tshark_shows() -> None:
    shown = iter(run([ipv6(135, protocols_pbu())], ["-V"]).splitlines())
    missing = [line for line in block("text").splitlines() if line not in shown]  # in this order
    assert missing == []


@pytest.mark.needs("tshark")
def test_the_filters_are_filters() -> None:
    cells = re.findall(r"^\| (`.*`) \|", PAGE, flags=re.MULTILINE)
    named = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    filters = [*named, *re.findall(r"`(dmm\.node\.\w+|mip6\.[\w.]+)`", PAGE)]
    assert len(filters) >= 15
    assert run([ipv6(135, protocols_pbu())], [f"-Y{' || '.join(filters)}"])


def test_the_example_makes_the_pbu() -> None:
    example = block("pycon")
    prompt = re.compile(r"^(?:>>> |\.\.\. )", flags=re.MULTILINE)
    lines = example.splitlines()
    typed = [prompt.sub("", line) for line in lines if prompt.match(line) or not line]
    answers = [line for line in lines if line and not prompt.match(line)]
    typed += ["print('all of it:', bytes(pbu).hex())"]
    shell = [sys.executable, "-m", "tools.scapy_dmm"]
    done = subprocess.run(
        shell, input="\n".join(typed) + "\n", capture_output=True, text=True, cwd=ROOT, check=True
    )
    # Without colours and prompts, which scapy writes to a pipe, too.
    printed = re.sub(r"\x1b\[[0-9;]*m|>>> |\.\.\. ", "", done.stdout).splitlines()
    assert [answer for answer in answers if answer not in printed] == []
    header = b"\x60\0\0\0\0\x80\x87\x40" + MAAR + PEER
    assert f"all of it: {(header + protocols_pbu()).hex()}" in printed
