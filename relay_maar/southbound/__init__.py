"""The kernel side of a MAAR: the only place that knows netlink. One file per tunnel driver, one registry line each."""
