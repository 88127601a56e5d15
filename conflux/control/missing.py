"""Names and addresses that no node answered to: they are not asked for again at once."""

from __future__ import annotations

from conflux.control.who import Who

# So long no answer to a question for a name or an address counts as one, unless a node is new.  Beyond the neighbours,
# behind a bridge or at a broker, nodes come up without a word to this one.
NEAR_S, FAR_S = 30.0, 3.0
COUNT_MAX = 256


class Missing:
    """What is missing, and until when.  is_far: questions go to more nodes than the neighbours."""

    def __init__(self) -> None:
        self.is_far = False
        self._until: dict[Who, float] = {}

    def holds(self, who: Who, now: float) -> bool:
        """Say whether a question had no answer a moment ago."""
        return self._until.get(who, now) > now

    def note(self, who: Who, now: float) -> None:
        """Take note that no node answered; for a node id that means nothing, as it may be out of reach alone."""
        if (who.name or who.address) is None:
            return
        self._until.pop(who, None)
        self._until[who] = now + (FAR_S if self.is_far else NEAR_S)
        if len(self._until) > COUNT_MAX:
            del self._until[next(iter(self._until))]

    def clear(self) -> None:
        """Forget all: a node is new, or a way to others."""
        self._until.clear()

    def reach_far(self) -> None:
        """Take note that questions go beyond the neighbours from now on, where nothing was asked for yet."""
        self.is_far = True
        self.clear()
