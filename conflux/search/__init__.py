"""Path search: which hops a stream should take.  interface.py has its questions, first.py the first one."""
