"""Anchor data frames: the layout of one message of a data channel, how it is sealed and how it is opened.

frame.py names the constants, key.py has the key of an epoch, codec.py the codec that runs, and speed.py says which AEAD
is faster on this machine.
"""
