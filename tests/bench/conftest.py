"""Before any test imports dhcpkit, our mends: it would replace `typing` for this whole process."""

import dhcp_cmd.plugin  # noqa: F401
