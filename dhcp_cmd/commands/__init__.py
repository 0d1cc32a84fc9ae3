"""The commands of `dhcp-cmd`, one module for each group."""
