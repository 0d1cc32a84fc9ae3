"""Numbers of Mobile IPv6 and Proxy Mobile IPv6 signalling.

RFC 6275 sections 6.1, 6.2 and 12, RFC 5213 section 8, RFC 8885 section 4 and, where noted, others.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

MOBILITY_HEADER = 135
"""The IPv6 next header value of the Mobility Header (RFC 6275 section 6.1.1)."""

NO_NEXT_HEADER = 59
"""IPPROTO_NONE, the only payload protocol that a Mobility Header may name."""

INITIAL_BINDACK_TIMEOUT = 1
"""Seconds before a PBU is first sent again; the wait doubles each time (RFC 6275 section 12)."""

MAX_BINDACK_TIMEOUT = 32
"""The longest wait, in seconds, between two transmissions of a PBU (RFC 6275 section 12)."""

MAX_UPDATE_RATE = 3
"""The most PBUs per second for one mobile node to one peer (RFC 6275 section 12)."""

LIFETIME_UNIT = 4
"""Seconds in a unit of the Lifetime field (RFC 6275 section 6.1.7)."""

LIFETIME_INFINITY = 0xFFFF * LIFETIME_UNIT
"""The longest lifetime, in seconds, that the field can say, which we take for one without end."""


class MobilityHeaderType(IntEnum):
    """The MH Types that this package reads and writes (RFC 6275 section 6.1)."""

    BINDING_UPDATE = 5
    BINDING_ACKNOWLEDGEMENT = 6
    BINDING_ERROR = 7


class UpdateFlag(IntFlag):
    """Flags of a Binding Update, from the high bit down."""

    ACKNOWLEDGE = 0x8000  # A
    HOME_REGISTRATION = 0x4000  # H
    LINK_LOCAL_COMPATIBILITY = 0x2000  # L
    KEY_MANAGEMENT = 0x1000  # K
    MAP_REGISTRATION = 0x0800  # M, RFC 5380
    MOBILE_ROUTER = 0x0400  # R, RFC 3963
    PROXY = 0x0200  # P, RFC 5213
    FORCING_UDP = 0x0100  # F, RFC 5844
    TLV_HEADER = 0x0080  # T, RFC 5845
    BULK = 0x0040  # B, RFC 6602
    MULTICAST = 0x0020  # S, RFC 7161
    DMM = 0x0010  # D, RFC 8885


class AcknowledgementFlag(IntFlag):
    """Flags of a Binding Acknowledgement, from the high bit down."""

    KEY_MANAGEMENT = 0x80  # K
    MOBILE_ROUTER = 0x40  # R, RFC 3963
    PROXY = 0x20  # P, RFC 5213
    TLV_HEADER = 0x10  # T, RFC 5845
    BULK = 0x08  # B, RFC 6602
    MULTICAST = 0x04  # S, RFC 7161
    DMM = 0x02  # D, RFC 8885


class Status(IntEnum):
    """Status of a Binding Acknowledgement: below 128 accepted, else rejected.

    RFC 6275 section 6.1.8, RFC 4285 section 8, RFC 5213 section 8.9, RFC 7148 section 4.2.
    """

    ACCEPTED = 0
    ACCEPTED_PREFIX_DISCOVERY_NECESSARY = 1
    REASON_UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    INSUFFICIENT_RESOURCES = 130
    HOME_REGISTRATION_NOT_SUPPORTED = 131
    NOT_HOME_SUBNET = 132
    NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE = 133
    DUPLICATE_ADDRESS_DETECTION_FAILED = 134
    SEQUENCE_NUMBER_OUT_OF_WINDOW = 135
    EXPIRED_HOME_NONCE_INDEX = 136
    EXPIRED_CARE_OF_NONCE_INDEX = 137
    EXPIRED_NONCES = 138
    REGISTRATION_TYPE_CHANGE_DISALLOWED = 139
    MIPV6_ID_MISMATCH = 144
    MIPV6_MESG_ID_REQD = 145
    MIPV6_AUTH_FAIL = 146
    PROXY_REG_NOT_ENABLED = 152
    NOT_LMA_FOR_THIS_MOBILE_NODE = 153
    MAG_NOT_AUTHORIZED_FOR_PROXY_REG = 154
    NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX = 155
    TIMESTAMP_MISMATCH = 156
    TIMESTAMP_LOWER_THAN_PREV_ACCEPTED = 157
    MISSING_HOME_NETWORK_PREFIX_OPTION = 158
    BCE_PBU_PREFIX_SET_DO_NOT_MATCH = 159
    MISSING_MN_IDENTIFIER_OPTION = 160
    MISSING_HANDOFF_INDICATOR_OPTION = 161
    MISSING_ACCESS_TECH_TYPE_OPTION = 162
    INVALID_CARE_OF_ADDRESS = 174
    NOT_AUTHORIZED_FOR_DELEGATED_MNP = 177
    REQUESTED_DMNP_IN_USE = 178


class BindingErrorStatus(IntEnum):
    """Status of a Binding Error (RFC 6275 section 6.1.9)."""

    UNKNOWN_BINDING = 1
    UNRECOGNIZED_MH_TYPE = 2


class HandoffIndicatorValue(IntEnum):
    """How the mobile node came (RFC 5213 section 8.4)."""

    RESERVED = 0
    NEW_INTERFACE = 1
    BETWEEN_INTERFACES = 2
    BETWEEN_GATEWAYS = 3
    UNKNOWN = 4
    NOT_CHANGED = 5


class AccessTechnologyValue(IntEnum):
    """What the mobile node is attached by (RFC 5213 section 8.5)."""

    RESERVED = 0
    VIRTUAL = 1
    PPP = 2
    IEEE_802_3 = 3
    IEEE_802_11 = 4
    IEEE_802_16E = 5


class AuthenticationSubtype(IntEnum):
    """Whose key an authentication option was made with (RFC 4285 section 8)."""

    MN_HA = 1
    MN_AAA = 2
