"""An exception with the traceback it got where it was raised."""

from __future__ import annotations

from collections.abc import Callable


def raised(action: Callable[[], object]) -> Exception:
    """Return the exception that action raises."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  # any will do
        return error
    raise AssertionError("nothing was raised")
