"""Whether packets can pass, by what the daemon says of itself."""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False  # it takes longer to import than all that this module does
if TYPE_CHECKING:
    from typing import Any


def lacks(got: Mapping[str, Any]) -> str:
    """Return what keeps packets from passing; empty if nothing does."""
    missing = [] if got["device"]["up"] else [f"the device {got['device']['name']} is down"]
    channels = got["control"]
    if not any(channel["up"] for channel in channels):
        said = [f"{channel['name']}: {channel['detail']}" for channel in channels]
        missing.append(f"no control channel is up ({'; '.join(said) or 'none is enabled'})")
    return "; ".join(missing)
