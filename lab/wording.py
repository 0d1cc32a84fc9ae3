"""Short texts for what signalling messages carry, for a person who knows the RFCs: DMM sub-options, PBU, PBA."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity
from dmm_wire.timestamp import to_micros
from lab.names import Names

_FLAG_LETTERS = {
    "ACKNOWLEDGE": "A",
    "HOME_REGISTRATION": "H",
    "LINK_LOCAL_COMPATIBILITY": "L",
    "KEY_MANAGEMENT": "K",
    "MAP_REGISTRATION": "M",
    "MOBILE_ROUTER": "R",
    "PROXY": "P",
    "FORCING_UDP": "F",
    "TLV_HEADER": "T",
    "BULK": "B",
    "MULTICAST": "S",
    "DMM": "D",
}
_IDENTIFIERS = {1: "NAI", 2: "IPv6", 3: "IMSI", 4: "P-TMSI", 5: "EUI-48", 6: "EUI-64", 8: "DUID"}


def suboption(suboption: dmm.SubOption, names: Names) -> str:
    """A DMM sub-option by its name."""
    match suboption:
        case dmm.Maar(endpoint=endpoint):
            return f"MAAR {names.address(endpoint)}"
        case dmm.Attachment(age_ms=age):
            return f"ATTACHMENT {age} ms ago"
        case dmm.AnchoredPrefix(prefix=prefix):
            return f"ANCHORED_PREFIX {names.prefix(prefix)}"
        case dmm.PreviousMaar(prefix=prefix, endpoint=endpoint, dlif_link_local=router):
            shown = "" if router is None else f" as {names.address(router)}"
            shown += ", awaited" if suboption.awaited else ""
            return f"PREVIOUS_MAAR {names.prefix(prefix)} at {names.address(endpoint)}{shown}"
        case dmm.Visit(generation=generation, previous=previous):
            left = "" if not any(previous) else f", left {names.address(previous)}"
            return f"VISIT {timestamp(generation)}{left}"
        case dmm.Status(code=code):
            return f"STATUS {code}"
        case dmm.MobileNode(identity=identity):
            return f"MOBILE_NODE {_kind(identity)}"
        case dmm.Domain(endpoints=endpoints):
            return f"DOMAIN {' '.join(names.address(endpoint) for endpoint in endpoints)}"
        case dmm.AnchorFailed(prefix=prefix):
            return f"ANCHOR_FAILED {names.prefix(prefix)}"
        case dmm.Signalling(mode=mode):
            known = {each.value: each.name.lower() for each in dmm.SignallingMode}
            return f"SIGNALLING {known.get(mode, mode)}"
    return type(suboption).__name__


def binding(message: mh.BindingUpdate | mh.BindingAcknowledgement, names: Names) -> list[str]:
    """What a PBU or PBA says: its fields, then its options with their numbers, without those on the link layer."""
    fields = [f"sequence {message.sequence}", f"flags {_flags(message.flags)}"]
    fields.append(
        "for ever" if message.lifetime >= mh.LIFETIME_INFINITY else f"{message.lifetime} s"
    )
    if isinstance(message, mh.BindingAcknowledgement):
        fields.insert(0, f"status {message.status} {_name(mh.Status, message.status)}".strip())
    options = (option(each, names) for each in message.options)
    return [*fields, *(text for text in options if text)]


def option(option: mh.MobilityOption, names: Names) -> str:
    """A mobility option by its name and type; empty for what says nothing about mobility sessions."""
    number = option.option_type
    match option:
        case mh.AccessTechnology() | mh.LinkLayerIdentifier() | mh.LinkLocalAddress():
            return ""
        case mh.MobileNodeIdentifier(identity=identity):
            text = f"MN-ID({number}) {_kind(identity)}"
        case mh.HomeNetworkPrefix(prefix=prefix) if not any(prefix.address):
            text = f"HNP({number}) all-zero"
        case (
            mh.HomeNetworkPrefix(prefix=prefix)
            | mh.DelegatedPrefix(prefix=prefix)
            | mh.AnchoredPrefixOption(prefix=prefix)
            | mh.LocalPrefix(prefix=prefix)
        ):
            text = f"{_PREFIX_OPTIONS[number]}({number}) {names.prefix(prefix)}"
        case mh.HandoffIndicator(value=value):
            text = f"HI({number}) {value}"
        case mh.Timestamp(value=value):
            text = f"Timestamp({number}) {timestamp(value)}"
        case mh.PreviousMaarOption(endpoint=endpoint, prefix=prefix):
            at = names.address(endpoint)
            text = f"Previous MAAR({number}) {names.prefix(prefix)} at {at}"
        case mh.ServingMaar(endpoint=endpoint):
            text = f"Serving MAAR({number}) {names.address(endpoint)}"
        case mh.DlifLinkLocal(address=address):
            text = f"DLIF link-local({number}) {names.address(address)}"
        case mh.VendorSpecific():
            text = f"Vendor({number}) {_vendor(option, names)}"
        case _:
            text = f"{_PLAIN_OPTIONS.get(number, 'option')}({number})"
    return text


_PREFIX_OPTIONS = {22: "HNP", 55: "DMNP", 65: "Anchored Prefix", 66: "Local Prefix"}
_PLAIN_OPTIONS = {
    9: "authentication",
    10: "replay protection",
    70: "DLIF link-layer",
}


def binding_error(message: mh.BindingError) -> str:
    """Why a Mobility Header was not understood (RFC 6275 section 6.1.9)."""
    return f"status {message.status} {_name(mh.BindingErrorStatus, message.status)}".strip()


def timestamp(value: int) -> str:
    """The time of day (UTC) of a timestamp or generation (RFC 5213 section 8.8), hex beyond the calendar's end."""
    try:
        return f"{datetime.fromtimestamp(to_micros(value) / 1e6, UTC):%H:%M:%S.%f}"
    except (WireError, ValueError, OverflowError, OSError):
        return f"0x{value:x}"


def _vendor(option: mh.VendorSpecific, names: Names) -> str:
    kind = dmm.REGISTRY.get(option.subtype)
    if option.enterprise == dmm.DEFAULT_ENTERPRISE and kind is not None:
        try:
            return suboption(kind.decode(option.data), names)
        except WireError as problem:
            return f"sub-type {option.subtype}: {problem.reason}"
    return f"{option.enterprise}, sub-type {option.subtype}"


def _kind(identity: Identity) -> str:
    return _IDENTIFIERS.get(identity.subtype, f"subtype {identity.subtype}")


def _flags(flags: IntFlag) -> str:
    from_the_left = sorted(flags, reverse=True)
    return "".join(_FLAG_LETTERS[flag.name or ""] for flag in from_the_left) or "none"


def _name(kind: type[mh.Status] | type[mh.BindingErrorStatus], number: int) -> str:
    try:
        return kind(number).name.lower().replace("_", " ")
    except ValueError:
        return ""
