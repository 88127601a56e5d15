"""The node joins the machines; the same code runs in the daemon, the simulator and the tests."""

from conflux.node.node import Node, NodeConfig

__all__ = ["Node", "NodeConfig"]
