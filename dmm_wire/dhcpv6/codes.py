"""Numbers of DHCPv6: message types, option codes, status codes, ports and limits.

From RFC 9915 sections 7 and 21 and, where noted, from the RFC that defines the code.
"""

from __future__ import annotations

from enum import IntEnum

CLIENT_PORT = 546
SERVER_PORT = 547
"""UDP port of servers and relay agents (RFC 9915 section 7.2)."""

HOP_COUNT_LIMIT = 8
"""The highest hop-count of a Relay-forward message (RFC 9915 section 7.6)."""

INFINITY = 0xFFFFFFFF
"""A lifetime, T1 or T2 without end (RFC 9915 section 7.7)."""


class MessageType(IntEnum):
    """DHCPv6 message types (RFC 9915 section 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11
    RELAY_FORW = 12
    RELAY_REPL = 13
    LEASEQUERY = 14  # RFC 5007
    LEASEQUERY_REPLY = 15  # RFC 5007
    LEASEQUERY_DONE = 16  # RFC 5460
    LEASEQUERY_DATA = 17  # RFC 5460
    RECONFIGURE_REQUEST = 18  # RFC 6977
    RECONFIGURE_REPLY = 19  # RFC 6977
    ACTIVELEASEQUERY = 22  # RFC 7653
    STARTTLS = 23  # RFC 7653


class OptionCode(IntEnum):
    """DHCPv6 option codes (RFC 9915 section 21, others as noted)."""

    CLIENTID = 1
    SERVERID = 2
    IA_NA = 3
    IA_TA = 4  # obsolete
    IAADDR = 5
    ORO = 6
    PREFERENCE = 7
    ELAPSED_TIME = 8
    RELAY_MSG = 9
    AUTH = 11
    UNICAST = 12  # obsolete
    STATUS_CODE = 13
    RAPID_COMMIT = 14
    USER_CLASS = 15
    VENDOR_CLASS = 16
    VENDOR_OPTS = 17
    INTERFACE_ID = 18
    RECONF_MSG = 19
    RECONF_ACCEPT = 20
    DNS_SERVERS = 23  # RFC 3646
    DOMAIN_LIST = 24  # RFC 3646
    IA_PD = 25
    IAPREFIX = 26
    SNTP_SERVERS = 31  # RFC 4075
    INFORMATION_REFRESH_TIME = 32
    REMOTE_ID = 37  # RFC 4649
    SUBSCRIBER_ID = 38  # RFC 4580
    CLIENT_FQDN = 39  # RFC 4704
    ERO = 43  # RFC 4994
    LQ_QUERY = 44  # RFC 5007
    CLIENT_DATA = 45  # RFC 5007
    CLT_TIME = 46  # RFC 5007
    LQ_RELAY_DATA = 47  # RFC 5007
    LQ_CLIENT_LINK = 48  # RFC 5007
    RELAY_ID = 53  # RFC 5460
    NTP_SERVER = 56  # RFC 5908
    RSOO = 66  # RFC 6422
    PD_EXCLUDE = 67  # RFC 6603
    CLIENT_LINKLAYER_ADDR = 79  # RFC 6939
    LINK_ADDRESS = 80  # RFC 6977
    SOL_MAX_RT = 82
    INF_MAX_RT = 83
    LQ_BASE_TIME = 100  # RFC 7653
    LQ_START_TIME = 101  # RFC 7653
    LQ_END_TIME = 102  # RFC 7653


class StatusCode(IntEnum):
    """Values of the Status Code option (RFC 9915 section 21.13, others as noted)."""

    SUCCESS = 0
    UNSPEC_FAIL = 1
    NO_ADDRS_AVAIL = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5  # obsolete
    NO_PREFIX_AVAIL = 6
    UNKNOWN_QUERY_TYPE = 7  # RFC 5007
    MALFORMED_QUERY = 8  # RFC 5007
    NOT_CONFIGURED = 9  # RFC 5007
    NOT_ALLOWED = 10  # RFC 5007
    QUERY_TERMINATED = 11  # RFC 5460
    DATA_MISSING = 12  # RFC 7653
    CATCH_UP_COMPLETE = 13  # RFC 7653
    NOT_SUPPORTED = 14  # RFC 7653
    TLS_CONNECTION_REFUSED = 15  # RFC 7653
