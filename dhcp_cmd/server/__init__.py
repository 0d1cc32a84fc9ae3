"""`dhcp-cmd serve`: the CMD's fast host. It reads the configuration file of `ipv6-dhcpd` and answers a batch of
datagrams from one transaction. On PostgreSQL several processes do, which share the listeners.

plan       what the configuration file comes to: plain data, made by dhcp_cmd.plugin.compile
filters    conditions on messages, static options
replies    the octets of an answer
responder  a batch of datagrams in, their answers out; no sockets
sockets    listeners
waiting    what waits to be answered, and what is dropped under overload
loop       what serves: one loop in a process
outage     an outage of the database, told once
start      start; one process that reloads and stops
supervision  which workers there are to be; no processes
workers    the parent of several workers
worker     one of them, and what it and its parent say to each other
configuration, signals, notify  what a process needs of its surroundings
"""
