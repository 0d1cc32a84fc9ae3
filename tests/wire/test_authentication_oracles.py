"""A signed PBU as others read it: scapy, in a process of its own, and tshark find both options where they belong."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dmm_wire import mobility
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
    assert stamp["timestamp"] == 0xEC9B06F940000000


@KEYS
@pytest.mark.needs("tshark")
def test_tshark_reads_both_options_and_complains_of_neither(key: Key, tmp_path: Path) -> None:
    plain = replace(PBU, options=PBU.options[:-1])
    bare = mobility.encode(plain, S_MAAR, P_MAAR)
    header = sign(PBU, key, S_MAAR, P_MAAR)
    capture = tmp_path / "signed.pcap"
    # LINKTYPE_RAW: a packet begins with its IP header.
    records = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for packet in (ipv6(bare), ipv6(header)):
        records += struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet
    capture.write_bytes(records)
    without, signed = json.loads(tshark(capture, "-T", "json"))
    assert named(without, "_ws.expert.message") == named(signed, "_ws.expert.message")
    assert "Malformed" not in json.dumps(signed)
    (option,) = named(signed, "mip6.options.auth")
    assert option.replace(":", "") == header[-7 - key.algorithm.size :].hex()
    assert named(signed, "mip6.auth.mobility_spi") == [str(key.spi)]
    assert "MIPv6 Option - MESG-ID-OPTION-TYPE\n                Length: 8\n" in tshark(
        capture, "-V"
    )


def named(value: Any, wanted: str) -> list[str]:
    """What stands under this name, wherever in what tshark says of a frame."""
    if isinstance(value, list):
        return [found for each in value for found in named(each, wanted)]
    if not isinstance(value, dict):
        return []
    own = [value[wanted]] if wanted in value else []
    return own + [found for each in value.values() for found in named(each, wanted)]


def tshark(capture: Path, *arguments: str) -> str:
    command = ["tshark", "-n", "-r", str(capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
