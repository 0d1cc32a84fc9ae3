"""The bytes that the CMD and the MAARs share: DHCPv6, the DMM sub-options, PMIPv6 mobility messages.

Standard library only, no input or output. Everything a decoder can object to is a
`dmm_wire.errors.WireError`.
"""
