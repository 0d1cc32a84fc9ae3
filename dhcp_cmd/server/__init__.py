"""`dhcp-cmd serve`: the CMD's fast host. It reads the configuration file of `ipv6-dhcpd` and answers a batch of
datagrams from one transaction.

plan       what the configuration file comes to: plain data, made by dhcp_cmd.plugin.compile
filters    conditions on messages, static options
replies    the octets of an answer
responder  a batch of datagrams in, their answers out; no sockets
sockets    listeners
waiting    what waits to be answered, and what is dropped under overload
loop       the server's one loop
start      start, reload, stop
"""
