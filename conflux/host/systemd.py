"""Telling systemd the state of the daemon, as in sd_notify(3); without systemd nothing is sent."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends to the NOTIFY_SOCKET of a service of Type=notify.

    watchdog_s: the longest time between two calls of alive(), in seconds; None if systemd has no watchdog for us.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # "@name" is an abstract socket; any other text that is no path (vsock) is ignored.
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self.watchdog_s = _watchdog_s(environment)

    def starting(self, within_s: float, text: str) -> None:
        """Tell that the start may take within_s seconds more from now on, and what it waits for."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}\nSTATUS={text}")

    def ready(self, text: str) -> None:
        """Tell that the service is up, and set its status line to text."""
        self._send(f"READY=1\nSTATUS={text}")

    def waiting(self, text: str) -> None:
        """Tell that the service has started and what it waits for before it can be up."""
        self._send(f"READY=1\nSTATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog; due at least every watchdog_s seconds."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the service is going down on purpose."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return half the interval in which systemd expects alive(), in seconds; None if it expects none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 else None
