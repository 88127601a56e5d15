"""Hypothesis as these tests want it: a busy machine is no counterexample."""

from hypothesis import settings

settings.register_profile("conflux", deadline=None, print_blob=True)
settings.load_profile("conflux")
