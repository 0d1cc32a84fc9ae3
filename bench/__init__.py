"""Benchmarks, for `./dev bench`, on one machine, in network namespaces. Not installed.

`cmd`, the CMD beside Kea:

domain      the addresses, links and pools that all servers of a run have
network     the namespaces
servers     what is measured: a server that starts from a fresh copy of a prepared state (`ours`, `kea`)
prefill     nodes that are bound before a measurement begins; `images`: kept from run to run
workloads   what is measured with: `perfdhcp`, and a `generator` of ours for what perfdhcp cannot send (`packets`)
search      the capacity: the highest rate with at most one exchange in a hundred lost
measure     one server under one workload with so many bound nodes
verify      what the database says of the handovers that were answered
plan, run   which of them in which order, told as it happens
report      its tables; `bars`: what has to be reached; `output`: JSON, Markdown, docs/performance.md

`crowd`, nodes that move at once, in a whole domain:

crowd_hosts     the nodes: a packet socket on each access link; `crowd_frames`: what goes over it
crowd_probes    the CN: a datagram to each node until it comes back; `stamped`: sockets that tell when
crowd_clock     when each node had its packets again, and what was said in the core by then
crowd_lab       the domain in the lab; `crowd_moves`: crowds of several sizes, their figures and bars
maars_alone     the same between two MAARs alone, their CMD a script (`maars_crowd`, `maars`, `nodes`, `kernel_events`)
crowd_report    both: tables, JSON

`forward`, packets through an S-MAAR that serves many (`forwarding`, `forwarding_maar`).

`modes`, handovers in the four modes:

scripted_client   a mobile node whose messages are sent when they are told to be
packet_stream     a datagram a millisecond, from the CN to it and back
phase_clock       when each part of a handover was done, and how many messages it took, from captured packets
handover_lab      one domain in the lab, with a delay before its CMD, in which moves are measured by these
distribution      median and percentiles
modes, modes_run  what RFC 8885 lets expect, and what was found; the four of them side by side
modes_report      tables, JSON, docs/performance.md

`handover`, one node's handover by what it is noticed by, and all else that a handover has to reach:

air                       the node's cable, put from link to link in microseconds
attach_domain             two MAARs and the nodes that are known to them; `attach_lab`: moves by each trigger
attach_clock              when each step was done, from packets and from what kernels say (`kernel_watch`)
attaching                 the triggers, what was measured of each, their bars
goodput                   TCP through the tunnel beside the same hops without one
handover, handover_run    all of it with `crowd` and `relay`, in one run
handover_report           tables, JSON, docs/performance.md; `handover_plot`: the picture
"""
