"""The MAAR without its sockets: datagrams, timers and kernel confirmations go in, actions come
out."""
