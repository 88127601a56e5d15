"""Where packets move.  The datapath holds tables and makes no decisions; see interface.py."""
