"""Path search: which hops a stream should take.  interface.py is the question, first.py the first answer."""
