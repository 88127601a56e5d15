"""The compiled datapath: Python's side of the engine (`cext/engine`)."""
