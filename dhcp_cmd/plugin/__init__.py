"""The CMD as an extension of dhcpkit's server: the one package that imports dhcpkit.

dhcpkit loads this package through the entry point `central-mobility-database`, while its own
modules are still being imported. So nothing more is done here than to apply the mends that dhcpkit
needs on a current Python; the configuration section is in `component.xml` and `config`, the handler
in `handler`.
"""

from dhcp_cmd.plugin import mends

mends.apply_at_load()
