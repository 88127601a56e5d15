"""The operator's side of a broker: what its servers need, what is published to them, and why a node is not let in."""
