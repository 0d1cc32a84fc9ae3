"""DHCPv6 (RFC 9915): codes, messages with raw options, and the options that carry structure."""
