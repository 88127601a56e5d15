"""Streams: one-way, end to end, each with its own secret.  handshake.py has messages and keys, streams.py decides."""
