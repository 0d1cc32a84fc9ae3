"""`python -m dhcp_cmd.plugin CONFIG`: dhcpkit's `ipv6-dhcpd` with our mends applied before it.

Where packaging/netifaces is installed there is no difference. Where another netifaces is, dhcpkit
fails on Python 3.12 and later (or beside a current setuptools) while it is imported, before it could
load any extension; this way it does not (see `mends`).
"""

import multiprocessing
import sys

from dhcpkit.ipv6.server.main import run

if __name__ == "__main__":
    # Workers are forked from a process that imports dhcpkit itself; it too has to import us before.
    multiprocessing.set_forkserver_preload(["dhcp_cmd.plugin"])
    sys.argv[0] = "ipv6-dhcpd"
    sys.exit(run())
