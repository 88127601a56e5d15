"""Conflux beside other overlays, in turn, on wires of every kind: `make bench-peers`."""
