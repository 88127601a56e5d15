"""docs/how-to/manage-members.md, command by command, on boards with real daemons.

Every line of a code block is run, on the board whose prompt it has, in the order of the page.  What a person would do
besides stands in comments: "# kitchen: its disk is empty", "# 35 days off: gate, kitchen".
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rig.days import pass_days
from rig.enter import TREE
from rig.topology import Daemon, Host, Lab, Process, wait_for

from conflux.cli.approval import Pending
from conflux.cli.members import Members

PAGE = TREE / "docs" / "how-to" / "manage-members.md"
LINE = re.compile(r"(?P<board>[a-z]+)\$\s+conflux (?P<words>.+)")
DAYS = re.compile(r"# (?P<days>\d+) days off: (?P<boards>[a-z, ]+)")
EMPTY = re.compile(r"# (?P<board>[a-z]+): its disk is empty")
WORD = "correct horse battery"


class Boards:
    """The boards of the page, each with its daemon while that is up."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.lan = lab.lan()
        self.hosts: dict[str, Host] = {}
        self.daemons: dict[str, Daemon] = {}
        self.token = ""
        self.joining: Process | None = None
        self.backup = lab.state / "home.backup"
        (lab.state / "word").write_text(WORD)

    def host(self, board: str) -> Host:
        """The host of a board, which the page may name for the first time."""
        if board not in self.hosts:
            host = self.hosts[board] = self.lab.host(board, self.lan)
            host.configure({"node": {"name": board}})
        return self.hosts[board]

    def run(self, line: str) -> None:
        """Do what one line of the page says."""
        if match := DAYS.fullmatch(line):
            self.pass_days(int(match["days"]), match["boards"].split(", "))
        elif match := EMPTY.fullmatch(line):
            host = self.host(match["board"])
            self.daemons.pop(match["board"]).kill()
            host.run("rm", "-r", host.state / "state")
        elif match := LINE.fullmatch(line):
            self.command(match["board"], shlex.split(match["words"]))
        else:
            raise AssertionError(f"not a line that can be run: {line!r}")

    def pass_days(self, days: int, off: list[str]) -> None:
        up = list(self.daemons)
        for board in up:
            self.daemons.pop(board).down()
        members = [host for host in self.hosts.values() if (host.state / "state" / "realm.chain").exists()]
        pass_days(days, *members)
        for board in up:
            if board not in off:
                self.daemons[board] = self.hosts[board].daemon()

    def command(self, board: str, words: list[str]) -> None:
        host = self.host(board)
        match words:
            case ["up"]:
                self.await_joining()
                self.daemons[board] = host.daemon()
            case ["ping", name]:
                arguments = ("ping", name, "-c", "1")

                def answered() -> bool:
                    return host.conflux(*arguments, check=False).returncode == 0

                wait_for(answered, f"{board}: ping {name}", within_s=45, logs=tuple(self.daemons.values()))
            case ["join", "TOKEN", *more]:
                config = str(host.configured())
                self.joining = host.spawn("join", self.lab.program, "join", self.token, *more, "--config", config)
            case ["realm", "invite", *more]:
                self.token = host.conflux("realm", "invite", "--quiet", *more).stdout.split()[-1]
            case ["realm", ("backup" | "restore") as verb, "home.backup", *more]:
                secret = ("--passphrase-file", str(self.lab.state / "word"))
                host.conflux("realm", verb, str(self.backup), *more, *secret)
            case ["realm", "pending"]:
                wait_for(lambda: host.ask(Pending, *words).pending, "a node waits", within_s=10)
            case ["realm", "members"]:
                self.await_joining()
                host.conflux(*words)
            case _:
                host.conflux(*words)
                if words == ["leave", "--yes"]:
                    assert self.daemons.pop(board).wait(10) == 0

    def await_joining(self) -> None:
        """The next command of a person comes when `conflux join` is done."""
        if self.joining is not None:
            assert self.joining.wait(30) == 0, self.joining.tail()
            self.joining = None


def commands(page: Path) -> list[str]:
    """The lines of the page's code blocks."""
    blocks = re.findall(r"^```\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_of_the_page_does_what_it_says(lab: Lab) -> None:
    boards = Boards(lab)
    boards.host("gate").conflux("realm", "create", "home", "--node", "gate")
    for board, words in (("gate", "up"), ("gate", "realm invite"), ("kitchen", "join TOKEN"), ("kitchen", "up")):
        boards.command(board, words.split())
    lines = commands(PAGE)
    assert len(lines) > 35
    for line in lines:
        boards.run(line)
    rows = boards.host("porch").ask(Members, "realm", "members").members
    assert {"kitchen", "porch"} <= {row.name for row in rows if row.state == "member"}
