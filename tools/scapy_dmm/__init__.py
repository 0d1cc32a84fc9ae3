"""Scapy layers for the DMM sub-options and for PBU and PBA (docs/protocol.md): for people, and for the tests.

Sub-options (`suboptions`) stand in scapy's own `DHCP6OptVendorSpecificInfo(enterprisenum=32473,
vso=[...])`, mobility options (`options`) where scapy has its own, padding included. A Binding
Update or Acknowledgement with the P flag of RFC 5213 is dissected as `MIP6MH_PBU` or `MIP6MH_PBA`
(`messages`). What has a wrong size stays raw, so that it can be built again.

`./dev run python -m tools.scapy_dmm` is scapy's shell with these layers. Nothing here knows
dmm_wire: it is another reader of the same wire. Scapy is GPL-2.0-only; it runs in a process without
the daemons and dhcpkit.
"""
