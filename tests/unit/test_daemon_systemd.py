"""What systemd hears, and that privileges go for good."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conflux.systemd import Notifier

PACKAGE = Path(__file__).resolve().parents[2]


def heard(listener: socket.socket) -> str:
    return listener.recv(4096).decode()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_hears_ready_alive_and_stopping(tmp_path, abstract):
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


def test_without_systemd_nothing_happens(tmp_path):
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


def test_dropped_privileges_do_not_come_back():
    script = (
        "from conflux import privileges; privileges.drop(); privileges.drop(); print(privileges.effective());"
        "import subprocess; print(open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE)},
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["0", "1"]
