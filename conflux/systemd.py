"""Telling systemd how we are (sd_notify), where it asked to be told; elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """The NOTIFY_SOCKET of a service of Type=notify."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # "@name" is an abstract socket; anything else that is not a path is not for us (vsock).
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self.watchdog_s = _watchdog_s(environment)

    def ready(self, text: str) -> None:
        """The service is up; text is its status line."""
        self._send(f"READY=1\nSTATUS={text}")

    def status(self, text: str) -> None:
        """Change the status line."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog; due at least every watchdog_s."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is going down on purpose."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return half the interval within which systemd wants a sign of life, in seconds; None if it wants none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 else None
