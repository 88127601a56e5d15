"""A resolver whose name servers do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ROW = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 7464))


class Resolver:
    """Stands in for the system's: names of .example have no answer until it is told to go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.goes_on = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *rest: Any, **more: Any) -> Any:
        if not host.endswith(".example") or more.get("flags", 0) & socket.AI_NUMERICHOST:
            return self._real(host, *rest, **more)  # no name server is asked
        self.asked.append(host)
        self.goes_on.wait(60)
        return [ROW]


@contextmanager
def dead_resolver() -> Iterator[Resolver]:
    """Put it in the place of the system's."""
    found = Resolver()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", found)
        yield found
        found.goes_on.set()
