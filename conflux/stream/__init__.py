"""Streams: one-way, end to end, each with a secret of its own.  handshake.py is the wire, machine.py decides."""
