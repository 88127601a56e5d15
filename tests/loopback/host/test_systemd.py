"""What systemd is told."""

import os
import socket

import pytest

from conflux.host.systemd import Notifier


def heard(listener: socket.socket) -> str:
    return listener.recv(4096).decode()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_ready_alive_and_stopping(tmp_path, abstract):
    name = f"\0conflux-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        listener.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": name.replace("\0", "@")})
        notifier.ready("pi in garden")
        assert heard(listener) == "READY=1\nSTATUS=pi in garden"
        notifier.alive()
        assert heard(listener) == "WATCHDOG=1"
        notifier.stopping()
        assert heard(listener) == "STOPPING=1"


def test_without_systemd_nothing_is_sent(tmp_path):
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_interval(environment, interval):
    assert Notifier(environment).watchdog_s == interval
