"""What peers said and a machine refused, counted by the machine's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from conflux.errors import RemoteProtocolError


class Refusals(Counter[str]):
    """How often each word was said."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what a peer said and a machine refused; it has no other effect."""
        try:
            yield
        except RemoteProtocolError as error:
            self[error.reason] += 1
