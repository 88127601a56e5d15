"""The frame codec that runs: the compiled one, or with CONFLUX_PURE=1 its Python twin.

It never falls back to the twin by itself: the twin takes six to nine times as long per packet, and the cause would be
hard to find.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from conflux.errors import UserError

if TYPE_CHECKING or os.environ.get("CONFLUX_PURE") != "1":
    try:
        from conflux.anchor._codec import Receiver, ReplayWindow, Sender, peek, relabel
    except ImportError as error:
        raise UserError(
            f"the compiled frame codec cannot be loaded ({error}): build it with "
            "`python setup.py build_ext --inplace` (needs a C compiler, the Python headers and libssl-dev), "
            "or set CONFLUX_PURE=1 to run without it, slowly"
        ) from error
else:
    from conflux.anchor._codec_py import Receiver, ReplayWindow, Sender, peek, relabel

__all__ = ["Receiver", "ReplayWindow", "Sender", "peek", "relabel"]
