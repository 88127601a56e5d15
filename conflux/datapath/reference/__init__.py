"""The datapath in Python: slow, readable, and the twin that the compiled one is tested against."""
