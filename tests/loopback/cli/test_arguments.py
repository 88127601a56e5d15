"""A token among the arguments: this process shows it no more, and who else does is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.tree import TREE

from conflux.cli import entry
from conflux.realm.invite import Token

SECRET = "cfx1" + "Ab-_9" * 40
HIDES = "import sys; from conflux.cli import entry; entry.hide_tokens(); print(sys.argv[1:], flush=True); input()"


def running(*words: str) -> tuple[str, list[bytes]]:
    """Run a process that hides its tokens; return what it has as its arguments, and what everyone sees of it."""
    with subprocess.Popen(
        [sys.executable, "-c", HIDES, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE
    ) as process:
        assert process.stdout is not None
        own = process.stdout.readline().strip()
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[3:-1]
        process.communicate("\n", timeout=30)
    return own, seen


def test_a_token_is_overwritten_for_all_others_and_kept_for_the_command() -> None:
    own, seen = running("join", SECRET, "--name", "kitchen")
    assert own == str(["join", SECRET, "--name", "kitchen"])
    assert seen == [b"join", b"*" * len(SECRET), b"--name", b"kitchen"]


def test_it_is_overwritten_wherever_it_stands() -> None:
    _, seen = running(f"--token={SECRET}", SECRET, "cfx", "caf\u00e9", SECRET)
    stars = b"*" * len(SECRET)
    assert seen == [b"--token=" + stars, stars, b"cfx", "caf\u00e9".encode(), stars]


def test_a_token_begins_as_the_command_line_expects(tmp_path: Path) -> None:
    made = conflux("realm", "create", "home", "--node", "gate", "--state-dir", tmp_path / "s")
    assert made.returncode == 0
    assert invited(tmp_path).startswith(entry.TOKEN)


def test_a_program_that_shows_it_still_is_named_with_the_other_ways(tmp_path: Path) -> None:
    conflux("realm", "create", "home", "--node", "gate", "--state-dir", tmp_path / "s")
    token = invited(tmp_path)
    (tmp_path / "file").write_text("so that it comes no further")
    command = f"{sys.executable} -m conflux join {token} --state-dir {tmp_path}/file; true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=TREE)
    warning = done.stderr.splitlines()[0]
    assert "can see the token in the arguments of bash (process " in warning
    assert "conflux join -" in warning
    assert "--token-file" in warning
    assert "CONFLUX_TOKEN" in warning
    assert token not in done.stderr
    alone = conflux("join", token, "--state-dir", tmp_path / "file")
    assert "can see the token" not in alone.stderr


def conflux(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    line = [sys.executable, "-m", "conflux", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=TREE)


def invited(tmp_path: Path) -> str:
    """Return a token."""
    token = conflux("realm", "invite", "--quiet", "--state-dir", tmp_path / "s").stdout.strip()
    Token.parse(token)
    return token
