"""Moves packets.  A datapath holds tables and decides nothing; interface.py has its contract."""
