"""Benchmarks, for `./dev bench`: the CMD beside Kea on one machine, in network namespaces. Not installed.

domain      the addresses, links and pools that all servers of a run have
network     the namespaces
servers     what is measured: a server that starts from a fresh copy of a prepared state (`ours`, `kea`)
prefill     nodes that are bound before a measurement begins; `images`: kept from run to run
workloads   what is measured with: `perfdhcp`, and a `generator` of ours for what perfdhcp cannot send (`packets`)
search      the capacity: the highest rate with at most one exchange in a hundred lost
measure     one server under one workload with so many bound nodes
verify      what the database says of the handovers that were answered
plan, run   which of them in which order, told as it happens
report      the tables; `bars`: what has to be reached; `output`: JSON, Markdown, docs/performance.md
"""
