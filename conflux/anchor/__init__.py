"""Anchor data frames: what one message of a data channel looks like, how it is sealed and how it is opened.

frame.py names the constants, codec.py has the codec that runs, speed.py says which AEAD this machine is better at.
"""
