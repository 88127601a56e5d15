"""Shared by labs, benches and the demo: namespaces with hosts and daemons, measuring, and printing what happens."""
