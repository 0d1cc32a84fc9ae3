"""tshark with our dissector: frames in, what it shows out."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import pack
from xml.etree import ElementTree

from dmm_wire import mobility
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import SERVER_PORT
from lab.pcapng import PcapNgWriter
from tests.house.import_rules import ROOT
from tests.tools.shown import Fields

DISSECTOR = ROOT / "tools" / "wireshark" / "dmm.lua"
MAAR = parse_address("2001:db8:ff::2")
PEER = parse_address("2001:db8:ff::1")

HEXED = {
    "dmm.data",
    "dmm.link_layer",
    "dmm.status.text",
    "dmm.node.nai",
    "dmm.node.duid",
    "dmm.node.identifier",
}
"""Fields that are compared by their octets."""

NOT_COMPARED = {"dmm.visit.time", "dmm.unknown", "dmm.malformed"}


def ipv6(protocol: int, payload: bytes) -> bytes:
    """A frame with a packet from MAAR to PEER."""
    header = pack("!IHBB", 0x60000000, len(payload), protocol, 64)
    return bytes(12) + b"\x86\xdd" + header + MAAR + PEER + payload


def dhcpv6(message: bytes) -> bytes:
    """A frame with a DHCPv6 message between relay agent and server."""
    return ipv6(17, pack("!HHHH", SERVER_PORT, SERVER_PORT, 8 + len(message), 0) + message)


def mobility_header(message: mobility.BindingUpdate | mobility.BindingAcknowledgement) -> bytes:
    """A frame with a PBU or PBA."""
    return ipv6(mobility.MOBILITY_HEADER, mobility.encode(message, MAAR, PEER))


def run(frames: Iterable[bytes], arguments: Sequence[str], scripts: Sequence[Path] = ()) -> str:
    """tshark's output. AssertionError if it failed or a Lua script did."""
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "capture.pcapng"
        writer = PcapNgWriter(capture, ["link"])
        for number, frame in enumerate(frames):
            writer.write(0, 10**18 + number, frame)
        writer.close()
        loaded = [f"-Xlua_script:{script}" for script in (DISSECTOR, *scripts)]
        done = subprocess.run(
            ["tshark", "-n", "-r", str(capture), *loaded, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder},
        )
    assert done.returncode == 0, done.stderr
    assert "Lua" not in done.stderr, done.stderr
    return done.stdout


def dissect(
    frames: Iterable[bytes], *arguments: str, scripts: Sequence[Path] = ()
) -> list[ElementTree.Element]:
    """What tshark shows of each frame, as PDML."""
    text = run(frames, ["-T", "pdml", *arguments], scripts)
    packets = list(ElementTree.fromstring(text))
    errors = [
        node.get("showname") or node.get("show")
        for packet in packets
        for node in packet.iter()
        if node.get("name") in ("_ws.lua.error", "_ws.lua.proto.error")
    ]
    assert not errors, errors
    return packets


def trees(packet: ElementTree.Element) -> list[ElementTree.Element]:
    """Our trees at the end of a packet, one for each option 17 or Mobility Header."""
    return [node for node in packet if node.get("name") == "dmm"]


def fields(node: ElementTree.Element) -> Fields:
    """Our fields in a tree, sorted."""
    return sorted(_fields(node))


def _fields(node: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for each in node.iter("field"):
        name = each.get("name", "")
        if name.startswith("dmm.") and name not in NOT_COMPARED:
            yield name, each.get("value" if name in HEXED else "show", "")


def named(packet: ElementTree.Element, name: str) -> list[str]:
    """How a field is shown, wherever it stands."""
    return [each.get("showname", "") for each in packet.iter() if each.get("name") == name]


def is_malformed(packet: ElementTree.Element) -> bool:
    """Whether our dissector complains."""
    return bool(named(packet, "dmm.malformed"))
