"""Simulations of whole nodes, each repeatable by its seed."""
