"""`conflux page` as a process: where it says it is, what it does without a port, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.answers import status

from conflux.cli.page import names
from conflux.config.settings import PageSettings

PATIENCE_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def page(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    config = tmp_path / "conflux.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}"\n[page]\nport = {port}\n')
    command = [sys.executable, "-m", "conflux", "page", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_serves_without_a_daemon_and_ends_in_good_order(tmp_path, number):
    port = free_port()
    with page(tmp_path, port) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"conflux: the page is at http://127.0.0.1:{port}/\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/state.json", timeout=PATIENCE_S) as answer:
            got = json.load(answer)
        assert got["status"] is None
        assert "no daemon listens" in got["daemon"]["reason"]
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_one_line_that_names_the_key(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with page(tmp_path, port) as process:
            _, said = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 1
    assert said == f"conflux: cannot listen on TCP port {port}: another program has it; choose another with page.port\n"


def test_a_board_is_known_by_its_host_name_its_nodes_name_and_those_of_the_configuration():
    found = names(PageSettings(names=("kitchen.lan",)), status())
    host = socket.gethostname().lower()
    assert {"localhost", host, "attic", "attic.home", "attic.local", "kitchen.lan"} <= found
    assert not any("evil" in name or name.startswith(".") for name in found)
    assert "attic" not in names(PageSettings(), None) or host.startswith("attic")
