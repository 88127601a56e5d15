"""Routes: the hops under a stream, joined by labels.  message.py is the wire on conflux.link.1, machine.py decides."""
