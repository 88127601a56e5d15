"""The I/O around a node: the pump drives it, a mover carries its packets and frames, the feed hands out its events."""
