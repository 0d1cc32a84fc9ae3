"""The CMD's side of PMIPv6: Proxy Binding Updates to MAARs (RFC 8885 sections 3.2 to 3.6).

settings   what the operator chose
compose    a signal and the node's rows in, what its PBU says out
outbox     when which PBU is sent, sent again, or finished; no clock, no database, no sockets
holding    answers that wait for acknowledgements (mode relay)
authenticated  who may say what: keys, replay protection, and its marks in the database
sockets    the raw Mobility Header socket
signaller  ties them to the database and the wire
daemon     `dhcp-cmd signal`: a signaller beside ipv6-dhcpd
"""
