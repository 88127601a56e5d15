"""Conflux: an overlay network for small boards and IoT gateways that keeps no tunnel up."""

__version__ = "0.1.0"
