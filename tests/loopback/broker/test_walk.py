"""docs/how-to/run-a-broker.md: every command of the page is run, in its order, and each does what the page says.

Hosts are loopback addresses.  What another program would do is done here: rsync copies, and systemctl runs the command
of the unit on the files that were copied.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from kit.broker import debian_server
from kit.operated import Server, conflux, free_base_port
from kit.pages import code_blocks
from kit.tree import DOCS

from conflux.broker.server_files import COMPOSE, UNIT

PAGE = DOCS / "how-to" / "run-a-broker.md"
HOSTS = {
    "nats.example.org": "127.0.0.2",
    "b.example.org": "127.0.0.3",
    "c.example.org": "127.0.0.4",
    "gate.lan": "127.0.0.5",
}
PLACE = "/etc/conflux-nats/"


def commands() -> list[str]:
    """Return the commands of the page, in order."""
    lines = (line.strip().partition("    #")[0].strip() for line in code_blocks(PAGE))
    return [line for line in lines if line.startswith("sudo ")]


class World:
    """The machines of the page: the issuer's, and one for each host."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.state_dir, self.port = tmp_path / "state", free_base_port()
        self.servers: dict[str, Server] = {}
        self.done: list[str] = []

    def run(self, line: str) -> None:
        """Do what one line of the page says."""
        for name, address in HOSTS.items():
            line = line.replace(name, address)
        words = shlex.split(line.removeprefix("sudo "))
        getattr(self, words[0].replace("-", "_"))(words[1:])
        self.done.append(words[0])

    def conflux(self, words: list[str]) -> None:
        """Run a command of ours; the page's port is one that is free here."""
        words = [word.replace(":4222", f":{self.port}") for word in words]
        words = [str(self.tmp_path / word) if word.startswith("broker") else word for word in words]
        port = ["--port", str(self.port)] if words[1] == "init" else []
        assert conflux(*words, *port, "--state-dir", str(self.state_dir)) == 0, words

    def rsync(self, words: list[str]) -> None:
        """Copy what a machine gets to a folder of its name."""
        option, source, target = words
        host, _, place = target.partition(":")
        assert option == "-a"
        assert source.endswith("/")  # what is in it, not the folder
        assert place.endswith("/")
        folder = self.tmp_path / "machines" / host.removeprefix("root@") / place.strip("/")
        shutil.copytree(self.tmp_path / source, folder, dirs_exist_ok=True)

    def apt_get(self, words: list[str]) -> None:
        """Have the program there."""
        assert words == ["install", "nats-server"]
        assert debian_server() is not None

    def systemctl(self, words: list[str]) -> None:
        """Start what is not running, or start everything anew, with the command of the unit."""
        if words == ["disable", "--now", "nats-server"]:
            return
        if words == ["restart", "conflux-nats"]:
            self.restart()
            return
        assert words == ["enable", "--now", f"{PLACE}{UNIT}"]
        self.start()

    def docker(self, words: list[str]) -> None:
        """Have the file there that it would read."""
        assert words == ["compose", "--project-directory", PLACE.rstrip("/"), "up", "--detach"]
        assert all((folder / COMPOSE).exists() for folder in self.folders())

    def folders(self) -> list[Path]:
        """Return the machines' folders of files."""
        return sorted(self.tmp_path.glob(f"machines/*{PLACE.rstrip('/')}"))

    def start(self) -> None:
        """Run the servers of all machines that run none."""
        for folder in self.folders():
            host = folder.parents[1].name
            if host not in self.servers:
                [start] = re.findall(r"^ExecStart=nats-server (.+)$", (folder / UNIT).read_text(), re.MULTILINE)
                assert start == "-c nats-server.conf"
                self.servers[host] = Server(debian_server(), folder, self.tmp_path / host)
                self.servers[host].start()
        for server in self.servers.values():
            server.wait_until_up(self.port)

    def restart(self) -> None:
        """Run all servers anew."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop all servers."""
        for server in self.servers.values():
            server.stop()
        self.servers.clear()

    def refresh(self) -> None:
        """Copy every server's files again and restart: the page says `as above`."""
        for host in self.servers:
            for kind in ("servers", "leaves"):
                if (source := self.tmp_path / "broker" / kind / host).exists():
                    shutil.copytree(source, self.tmp_path / "machines" / host / PLACE.strip("/"), dirs_exist_ok=True)
        self.restart()

    def is_let_in_everywhere(self) -> bool:
        """Ask every server to let the node in."""
        ca = ["--ca", str(self.tmp_path / "broker" / "ca.pem"), "--state-dir", str(self.state_dir)]
        where = [f"{host}:{self.port}" for host in self.servers]
        return all(conflux("control", "check", "--server", at, *ca) == 0 for at in where)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    assert conflux("realm", "create", "home", "--node", "alpha", "--state-dir", str(made.state_dir)) == 0
    yield made
    made.stop()


def test_every_command_of_the_page_does_what_it_says(world, capsys):
    every = commands()
    server_counts = []
    for line in every:
        world.run(line)
        if " control init " in line and world.servers:
            world.refresh()  # "copy and restart as above"
        if line.startswith(("sudo systemctl enable", "sudo conflux control init broker --region")):
            capsys.readouterr()
            assert world.is_let_in_everywhere(), capsys.readouterr().out
            server_counts.append(len(world.servers))
    assert server_counts == [1, 3, 3, 4]
    assert set(world.done) == {"conflux", "rsync", "apt-get", "systemctl", "docker"}
    assert len(every) > 18


def test_the_second_issuer_gets_files_that_its_state_directory_knows(world):
    for line in commands():
        if " control init " in line or "/issuer/" in line:
            world.run(line)
    copied = world.tmp_path / "machines" / "office.lan" / "var" / "lib" / "conflux"
    assert {file.name for file in copied.iterdir()} == {"broker", "broker.key"}
    for name in ("broker", "broker.key"):
        assert (copied / name).read_bytes() == (world.state_dir / name).read_bytes()
