"""A signed PBU as others read it: scapy, in a process of its own, and tshark find both options, whole and in place."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmm_wire import mobility
from dmm_wire.address import format_address
from dmm_wire.mobility.authentication import Key, locate, sign

from .test_authentication import P_MAAR, PBU, S_MAAR, SHA1, SHA256

KEYS = pytest.mark.parametrize("key", [SHA1, SHA256], ids=lambda key: str(key.algorithm))


def ipv6(header: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(header), 135, 64) + S_MAAR + P_MAAR + header


@KEYS
@pytest.mark.skipif(
    importlib.util.find_spec("scapy") is None, reason="not run: needs scapy (extra dev)"
)
def test_scapy_reads_both_options(key: Key) -> None:
    header = sign(PBU, key, S_MAAR, P_MAAR)
    request = {"do": "dissect", "as": "MIP6MH_BU", "octets": header.hex()}
    oracle = [sys.executable, str(Path(__file__).with_name("scapy_oracle.py"))]
    asked = json.dumps(request) + "\n"
    done = subprocess.run(oracle, input=asked, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["rest"] == ""
    (layer,) = answer["layers"]
    *_, last = layer["options"]
    seal = locate(header)
    assert seal is not None
    wanted = {"layer": "MIP6OptMsgAuth", "otype": 9, "olen": 5 + key.algorithm.size, "subtype": 1}
    assert wanted.items() <= last.items()
    assert (last["mspi"], last["authdata"]) == (key.spi, {"hex": seal.data.hex()})
    (stamp,) = [each for each in layer["options"] if each["layer"] == "MIP6OptReplayProtection"]
    # Scapy has it in seconds.
    assert stamp["timestamp"] == 0xEC9B06F940000000 >> 32


@KEYS
@pytest.mark.needs("tshark")
def test_tshark_reads_both_options_and_has_nothing_to_complain(key: Key, tmp_path: Path) -> None:
    header = sign(PBU, key, S_MAAR, P_MAAR)
    packet = ipv6(header)
    capture = tmp_path / "signed.pcap"
    # LINKTYPE_RAW: the packet begins with its IP header.
    pcap = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    capture.write_bytes(pcap + struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)
    shown = tshark(capture, "-T", "json", "-x")
    (frame,) = json.loads(shown)
    layers = frame["_source"]["layers"]
    assert layers["ipv6"]["ipv6.src"] == format_address(S_MAAR)
    text = tshark(capture, "-V")
    assert "Mobility Message Replay Protection" in text or "Replay Protection" in text
    assert "Authentication" in text
    assert f"{key.spi:#x}"[2:] in text or str(key.spi) in text
    seal = locate(header)
    assert seal is not None
    assert seal.data.hex() in text.replace(":", "")
    assert "Malformed" not in text
    assert "_ws.expert" not in shown
    assert mobility.checksum(header, S_MAAR, P_MAAR) == 0


def tshark(capture: Path, *arguments: str) -> str:
    command: list[Any] = ["tshark", "-n", "-r", str(capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
