"""The Central Mobility Database (CMD): an operator's DHCPv6 server that knows where every mobile node is (RFC 8885)."""
