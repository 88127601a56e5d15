"""Path search: which hops a stream should take.  interface.py is the question, direct.py the first answer."""
