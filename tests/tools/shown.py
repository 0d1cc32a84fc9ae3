"""What a person is to be shown of each sub-option and mobility option: Wireshark's fields, scapy's fields.

Written by hand from docs/protocol.md and the RFCs, not from the dissectors.
"""

from __future__ import annotations

from typing import Any

from dmm_wire import dmm, mobility
from dmm_wire.address import Prefix, format_address
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype

Fields = list[tuple[str, str]]
"""Wireshark's name and value of each field; octets and text as hex."""


def address(packed: bytes) -> str:
    return format_address(packed)


# --- Wireshark ---


def anchored(prefix: Prefix, preferred: int, valid: int, delegated: bool) -> Fields:
    return [
        ("dmm.prefix.delegated", str(int(delegated))),
        ("dmm.prefix.preferred", str(preferred)),
        ("dmm.prefix.valid", str(valid)),
        *plain_prefix(prefix),
    ]


def plain_prefix(prefix: Prefix) -> Fields:
    return [("dmm.prefix.length", str(prefix.length)), ("dmm.prefix", address(prefix.address))]


def link_layer(octets: bytes) -> Fields:
    return [("dmm.link_layer", octets.hex())] if octets else []


def identity(who: Identity) -> Fields:
    names = {IdentitySubtype.NAI: "nai", IdentitySubtype.DUID: "duid"}
    name = names.get(who.subtype, "identifier")  # type: ignore[call-overload]
    return [("dmm.node.subtype", str(who.subtype)), (f"dmm.node.{name}", who.value.hex())]


def head(code: int, body: bytes) -> Fields:
    return [("dmm.suboption", str(code)), ("dmm.suboption.length", str(len(body)))]


def suboption_fields(suboption: dmm.SubOption) -> Fields:
    """The fields of a sub-option, those of the sub-options in it included."""
    return head(dmm.code_of(suboption), suboption.body()) + _content(suboption)


def _content(suboption: dmm.SubOption) -> Fields:
    match suboption:
        case dmm.Maar(endpoint, capabilities):
            return [
                ("dmm.maar", address(endpoint)),
                ("dmm.capabilities", f"0x{capabilities:04x}"),
                ("dmm.capabilities.ipv6_in_ipv6", str(capabilities >> 15)),
                ("dmm.capabilities.pmipv6", str(capabilities >> 14 & 1)),
                ("dmm.capabilities.slaac", str(capabilities >> 13 & 1)),
                ("dmm.capabilities.no_sessions", str(capabilities >> 12 & 1)),
            ]
        case dmm.Attachment(age, handoff, access, hardware, octets):
            return [
                ("dmm.attachment.age", str(age)),
                ("dmm.attachment.handoff", str(handoff)),
                ("dmm.attachment.access", str(access)),
                ("dmm.hardware", str(hardware)),
                *link_layer(octets),
            ]
        case dmm.AnchoredPrefix():
            return anchored(
                suboption.prefix, suboption.preferred, suboption.valid, suboption.delegated
            )
        case dmm.PreviousMaar(prefix, preferred, valid, delegated, endpoint, local, layer, awaited):
            fields = anchored(prefix, preferred, valid, delegated)
            fields.append(("dmm.prefix.awaited", str(int(awaited))))
            fields.append(("dmm.previous_maar", address(endpoint)))
            if local is not None:
                fields += [*head(6, local), ("dmm.dlif.link_local", address(local))]
            if layer is not None:
                fields += head(7, bytes(2) + layer[1])
                fields += [("dmm.hardware", str(layer[0])), *link_layer(layer[1])]
            return fields
        case dmm.Visit(generation, previous):
            return [
                ("dmm.visit.generation", f"0x{generation:016x}"),
                ("dmm.visit.left", address(previous)),
            ]
        case dmm.Status(code, text):
            fields = [("dmm.status.text", text.encode().hex())] if text else []
            return [("dmm.status", str(code)), *fields]
        case dmm.MobileNode(who):
            return identity(who)
        case dmm.Domain(endpoints):
            return [("dmm.domain.maar", address(endpoint)) for endpoint in endpoints]
        case dmm.AnchorFailed(prefix, endpoint):
            return [*plain_prefix(prefix), ("dmm.previous_maar", address(endpoint))]
        case dmm.Signalling(mode):
            return [("dmm.signalling.mode", str(mode))]
    raise TypeError(suboption)


def told(option: mobility.VendorSpecific) -> dmm.SubOption | None:
    """The sub-option in a Vendor Specific option; None if it is none that can be read."""
    kind = dmm.REGISTRY.get(option.subtype)
    if option.enterprise != dmm.DEFAULT_ENTERPRISE or kind is None:
        return None
    try:
        return kind.decode(option.data)
    except WireError:
        return None


def _vendor_fields(option: mobility.VendorSpecific) -> Fields:
    if option.enterprise != dmm.DEFAULT_ENTERPRISE:
        return []
    suboption = told(option)
    if suboption is not None:
        fields = _content(suboption)
    elif option.subtype not in dmm.REGISTRY and option.data:
        fields = [("dmm.data", option.data.hex())]
    else:
        fields = []
    return [("dmm.suboption", str(option.subtype)), *fields]


def option_fields(option: mobility.MobilityOption) -> Fields:
    """The fields of a mobility option under our names; none where Wireshark's own are right."""
    match option:
        case mobility.MobileNodeIdentifier(who) if who.subtype != IdentitySubtype.NAI:
            fields = identity(who)
        case mobility.AnchoredPrefixOption(prefix) | mobility.LocalPrefix(prefix):
            fields = plain_prefix(prefix)
        case mobility.PreviousMaarOption(endpoint, prefix):
            fields = [*plain_prefix(prefix), ("dmm.previous_maar", address(endpoint))]
        case mobility.ServingMaar(endpoint):
            fields = [("dmm.serving_maar", address(endpoint))]
        case mobility.DlifLinkLocal(local):
            fields = [("dmm.dlif.link_local", address(local))]
        case mobility.DlifLinkLayer(octets):
            fields = link_layer(octets)
        case mobility.VendorSpecific():
            return _vendor_fields(option)
        case _:
            return []
    size = len(option.body())
    return [
        ("dmm.option", str(option.option_type)),
        ("dmm.option.length", str(size)),
        *fields,
    ]


# --- scapy ---


def hexed(octets: bytes) -> dict[str, str]:
    return {"hex": octets.hex()}


def scapy_suboption(suboption: dmm.SubOption) -> dict[str, Any]:
    """The same as scapy's layer and its fields."""
    match suboption:
        case dmm.Maar(endpoint, capabilities):
            name: str = "MAAR"
            fields: dict[str, Any] = {"endpoint": address(endpoint), "capabilities": capabilities}
        case dmm.Attachment(age, handoff, access, hardware, octets):
            name = "Attachment"
            fields = {"age": age, "handoff": handoff, "access": access, "lltype": hardware}
            fields["lladdr"] = hexed(octets)
        case dmm.AnchoredPrefix():
            name = "AnchoredPrefix"
            fields = _scapy_anchored(suboption)
        case dmm.PreviousMaar(endpoint=endpoint, dlif_link_local=local, dlif_link_layer=layer):
            name = "PreviousMAAR"
            dlif: list[dict[str, Any]] = []
            if local is not None:
                dlif.append({"layer": "DMMOptDLIFLinkLocal", "address": address(local)})
            if layer is not None:
                number, octets = layer
                dlif.append(
                    {"layer": "DMMOptDLIFLinkLayer", "lltype": number, "lladdr": hexed(octets)}
                )
            fields = {**_scapy_anchored(suboption), "endpoint": address(endpoint), "dlif": dlif}
        case dmm.Visit(generation, previous):
            name, fields = "Visit", {"generation": generation, "left": address(previous)}
        case dmm.Status(code, text):
            name, fields = "Status", {"status": code, "text": hexed(text.encode())}
        case dmm.MobileNode(who):
            name, fields = "MobileNode", {"subtype": who.subtype, "id": hexed(who.value)}
        case dmm.Domain(endpoints):
            name, fields = "Domain", {"endpoints": [address(endpoint) for endpoint in endpoints]}
        case dmm.AnchorFailed(prefix, endpoint):
            name, fields = "AnchorFailed", {**_scapy_prefix(prefix), "endpoint": address(endpoint)}
        case dmm.Signalling(mode):
            name, fields = "Signalling", {"mode": mode}
        case _:
            raise TypeError(suboption)
    return {"layer": f"DMMOpt{name}", **fields}


def _scapy_prefix(prefix: Prefix) -> dict[str, Any]:
    return {"plen": prefix.length, "prefix": address(prefix.address)}


def _scapy_anchored(option: dmm.AnchoredPrefix | dmm.PreviousMaar) -> dict[str, Any]:
    is_awaited = isinstance(option, dmm.PreviousMaar) and option.awaited
    return {
        "flags": (0x80 if option.delegated else 0) | (0x40 if is_awaited else 0),
        "preferred": option.preferred,
        "valid": option.valid,
        **_scapy_prefix(option.prefix),
    }


_PREFIX_LAYERS = {22: "HomeNetworkPrefix", 55: "DelegatedPrefix"}
_PREFIX_LAYERS |= {65: "AnchoredPrefix", 66: "LocalPrefix"}
_ADDRESS_LAYERS = {26: "LinkLocalAddr", 69: "DLIFLinkLocal"}


def scapy_option(option: mobility.MobilityOption) -> dict[str, Any]:
    """The same for a mobility option."""
    match option:
        case mobility.MobileNodeIdentifier(who):
            return {"layer": "MIP6OptMNID", "subtype": who.subtype, "id": hexed(who.value)}
        case (
            mobility.HomeNetworkPrefix(prefix)
            | mobility.DelegatedPrefix(prefix)
            | mobility.AnchoredPrefixOption(prefix)
            | mobility.LocalPrefix(prefix)
        ):
            name: str = _PREFIX_LAYERS[option.option_type]
            fields: dict[str, Any] = _scapy_prefix(prefix)
        case mobility.HandoffIndicator(value):
            name, fields = "HandoffIndicator", {"handoff": value}
        case mobility.AccessTechnology(value):
            name, fields = "AccessTechnology", {"access": value}
        case mobility.LinkLayerIdentifier(octets):
            name, fields = "LinkLayerId", {"lladdr": hexed(octets)}
        case mobility.LinkLocalAddress(local) | mobility.DlifLinkLocal(local):
            name, fields = _ADDRESS_LAYERS[option.option_type], {"address": address(local)}
        case mobility.MessageAuthentication(subtype, spi, data):
            name = "MsgAuth"
            fields = {"subtype": subtype, "mspi": spi, "authdata": hexed(data)}
        case mobility.ReplayProtection(value):
            name, fields = "ReplayProtection", {"timestamp": value}
        case mobility.Timestamp(value):
            name, fields = "Timestamp", {"timestamp": value}
        case mobility.PreviousMaarOption(endpoint, prefix):
            name, fields = "PreviousMAAR", {"endpoint": address(endpoint), **_scapy_prefix(prefix)}
        case mobility.ServingMaar(endpoint):
            name, fields = "ServingMAAR", {"endpoint": address(endpoint)}
        case mobility.DlifLinkLayer(octets):
            name, fields = "DLIFLinkLayer", {"lladdr": hexed(octets)}
        case mobility.VendorSpecific(enterprise, subtype, data):
            inside = told(option)
            own = {"layer": "VENDOR_SPECIFIC_OPTION", "optcode": subtype, "optdata": hexed(data)}
            name = "VendorSpecific"
            fields = {"enterprise": enterprise}
            fields["suboption"] = own if inside is None else scapy_suboption(inside)
        case mobility.UnknownOption(number, data):
            return {"layer": "MIP6OptUnknown", "otype": number, "odata": hexed(data)}
        case _:
            raise TypeError(option)
    return {"layer": f"MIP6Opt{name}", **fields}
