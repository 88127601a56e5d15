"""One question to an issuer over the broker, and what comes after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from conflux.control.nats.connection import Connection
from conflux.control.nats.protocol import Message
from conflux.errors import RemoteProtocolError
from conflux.realm.broker.joining import Asked, Told

T = TypeVar("T")

AGAIN_S = (0.4, 0.8, 1.6, 3.2)  # a message that nobody hears is lost: it is sent again, as often
HEARD_COUNT_MAX = 64  # messages that wait to be read; a server that sends more loses them


class Silence(Exception):
    """No answer came, however often we asked."""


class Exchange:
    """One question to the issuer, and what comes after it."""

    def __init__(self, connection: Connection, messages: asyncio.Queue[Message], subject: str) -> None:
        self._connection = connection
        self._messages = messages
        self._subject = subject

    async def ask(self, asked: Asked, pick: Callable[[Told], T | None]) -> T:
        """Publish a question, again and again, until pick() returns something of what comes.  Raises Silence."""
        data = asked.encode()
        for again_s in AGAIN_S:
            if not self._connection.send(self._subject, data):
                raise Silence
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    while True:
                        told = told_untrusted(await self._messages.get())
                        if told is not None and (found := pick(told)) is not None:
                            return found
        raise Silence


def told_untrusted(message: Message) -> Told | None:
    """Return what an issuer publishes, or None if a message is nothing of the kind."""
    try:
        return Told.decode_untrusted(message.payload)
    except RemoteProtocolError:
        return None
