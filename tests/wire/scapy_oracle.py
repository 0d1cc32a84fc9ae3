"""Scapy as an oracle, in a process of its own: a JSON request on each line of stdin, a JSON answer out.

    {"do": "build", "packet": PACKET}        -> {"octets": HEX}
    {"do": "dissect", "as": CLASS, "octets": HEX} -> {"layers": [PACKET, ...], "rest": HEX}
    {"do": "rebuild", "as": CLASS, "octets": HEX, "computed": BOOL} -> {"octets": HEX}
    {"do": "checksum", "octets": HEX, "source": ADDRESS, "destination": ADDRESS} -> {"checksum": N}

PACKET is `{"layer": CLASS, field: value, ..., "payload": PACKET}`; octets are `{"hex": HEX}`,
packets may stand in lists. Arguments are modules with more layers. Run only as a program: scapy's
licence, GPL-2.0-only, does not go with dhcpkit's.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from scapy.layers import dhcp6, inet6
from scapy.packet import NoPayload, Packet, Raw

COMPUTED = ("optlen", "olen", "len", "plen", "cksum", "chksum")
"""Lengths and checksums, which scapy works out where they are not given."""

places = [dhcp6, inet6]


def find(name: str) -> Any:
    return next(getattr(place, name) for place in places if hasattr(place, name))


def to_scapy(value: Any) -> Any:
    if isinstance(value, list):
        return [to_scapy(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    fields = {key: to_scapy(each) for key, each in value.items() if key not in ("layer", "payload")}
    packet = find(value["layer"])(**fields)
    return packet / to_scapy(value["payload"]) if "payload" in value else packet


def to_json(value: Any) -> Any:
    if isinstance(value, Packet):
        fields = {field.name: to_json(value.getfieldval(field.name)) for field in value.fields_desc}
        return {"layer": type(value).__name__, **fields}
    if isinstance(value, list):
        return [to_json(each) for each in value]
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if value is None or isinstance(value, str | int | float):
        return value
    return int(value)  # FlagValue


def layers_of(packet: Packet) -> tuple[list[Any], bytes]:
    layers: list[Any] = []
    while not isinstance(packet, NoPayload):
        if isinstance(packet, Raw):  # scapy's Padding is a Raw, too
            return layers, bytes(packet)
        layers.append(to_json(packet))
        packet = packet.payload
    return layers, b""


def forget(packet: Packet, computed: bool) -> None:
    """Make scapy build anew what it dissected; with `computed`, lengths, checksums and padding, too."""
    while not isinstance(packet, NoPayload):
        packet.raw_packet_cache = None
        if not computed:
            packet.fields.update({"autopad": 0} if "autopad" in packet.fields else {})
        elif not isinstance(packet, Raw):
            for name in COMPUTED:
                # A prefix has a `plen`, too.
                if name != "plen" or isinstance(packet, inet6.IPv6):
                    packet.fields.pop(name, None)
        for name, value in packet.fields.items():
            if isinstance(value, list):
                drop = (inet6.Pad1, inet6.PadN) if computed else ()
                packet.fields[name] = value = [each for each in value if not isinstance(each, drop)]
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, Packet):
                    forget(each, computed)
        packet = packet.payload


def answer(request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "build":
            return {"octets": bytes(to_scapy(request["packet"])).hex()}
        case "dissect":
            packet = find(request["as"])(bytes.fromhex(request["octets"]))
            layers, rest = layers_of(packet)
            return {"layers": layers, "rest": rest.hex()}
        case "rebuild":
            packet = find(request["as"])(bytes.fromhex(request["octets"]))
            forget(packet, request["computed"])
            return {"octets": bytes(packet).hex()}
        case "checksum":
            octets = bytes.fromhex(request["octets"])
            lower = inet6.IPv6(src=request["source"], dst=request["destination"])
            return {"checksum": inet6.in6_chksum(135, lower, octets)}
        case other:
            raise ValueError(f"unknown request {other}")


def main() -> None:
    places.extend(map(importlib.import_module, sys.argv[1:]))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
