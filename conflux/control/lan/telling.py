"""What the log says of neighbours: that they come and go, and who is none and why.  Folded where it happens often."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Final

from conflux.control.drop import Drop
from conflux.errors import RemoteProtocolError
from conflux.host.folding import Folded

log = logging.getLogger(__name__)

STOPPED: Final = "stopped"  # this node is going down: that its neighbours go is no news
# Words for the reasons that this node gives to the end of a connection; the others are words already.
_ENDS = {
    "expired": "its credential has ended",
    "revoked": "it is a member no more",
    "silent": "it is silent",
    "slow": "it does not read what it is sent",
    "reset": "the connection broke off",
    "address-gone": "this board no longer has the address",
    Drop.FLOOD: "it says too much (flood)",
}


class Telling:
    """Writes lines at "info"."""

    def __init__(self) -> None:
        self._folded = Folded(log)
        self._refusals = Folded(log, count=1)  # a board with a wrong clock is tried again for days

    def came(self, name: str, host: str) -> None:
        """Say that a neighbour is there, at an address."""
        self._folded.say(("neighbour", name), f"neighbour {name} at {host}")

    def went(self, name: str, why: str) -> None:
        """Say that a neighbour is gone.  why: the reason of its connection's end."""
        if why == STOPPED:
            log.debug("neighbour %s: this node is going down", name)
        else:
            self._folded.say(("neighbour", name), f"neighbour {name} lost: {_ENDS.get(why, why)}")

    def joins(self, lans: Sequence[str]) -> None:
        """Say which LANs this node connects now."""
        text = f"connects the LANs on {_and(lans)}" if lans else "connects no LANs any more"
        self._folded.say("joins", f"this node {text}")

    def refused(self, who: Hashable, host: str, port: int, error: RemoteProtocolError) -> None:
        """Say why a node that was dialled is no neighbour.  who: names it, at whatever address it was dialled."""
        if error.reason == Drop.CLOSED:
            text = "did not let us in: another realm, or our credential is not valid to it"
        else:
            text = f"is not a neighbour: {error}"
        self._refusals.say((who, error.reason), f"{host} port {port} {text}")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
