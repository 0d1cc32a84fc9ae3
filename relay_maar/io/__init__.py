"""Sockets, the session file and the control socket: everything of the MAAR that touches the outside, but the kernel's
tables (`relay_maar.southbound`)."""
