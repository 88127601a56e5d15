"""Which lanes `make test` runs for which changes: the rule is .ci/lanes, tried here on checkouts of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kit.tree import TREE

ALL = ["lint", "unit", "cext", "lab", "relay", "demo", "control", "first-hour"]
ANONYMOUS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "lab@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


class Checkout:
    """A git checkout with one landed commit, which origin/main names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lanes", "as-owner"):
            (root / ".ci").mkdir(exist_ok=True)
            shutil.copy(TREE / ".ci" / name, root / ".ci" / name)
        self.write("README.md")
        self.write("conflux/node.py")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.git("update-ref", "refs/remotes/origin/main", "HEAD")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.root, env={**os.environ, **ANONYMOUS}, check=True)

    def write(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=one")

    def lanes(self, base: str | None = None) -> tuple[list[str], str]:
        """Return the lanes and the reasons."""
        environment = {name: value for name, value in os.environ.items() if name != "CONFLUX_BASE"}
        if base is not None:
            environment["CONFLUX_BASE"] = base
        done = subprocess.run(
            [self.root / ".ci" / "lanes"], env={**environment, **ANONYMOUS}, capture_output=True, text=True, check=True
        )
        return done.stdout.split(), done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("path", "lanes"),
    [
        ("docs/protocol.md", ["lint", "unit"]),
        ("README.md", ["lint", "unit"]),
        ("packaging/conflux.service", ["lint", "unit", "first-hour"]),
        ("packaging/README.md", ["lint", "unit"]),
        ("tests/lab/packages/test_lab_repository.py", ["lint", "unit", "first-hour"]),
        ("tests/lab/rig/board.py", ["lint", "unit", "first-hour"]),
        ("tests/lab/container/test_lab_container.py", ["lint", "unit"]),
        ("tests/image/vm.py", ["lint", "unit"]),
        (".clang-format", ["lint"]),
        ("tests/mutants/1.patch", ["lint"]),
        ("tests/unit/anchor/test_codec.py", ["lint", "unit"]),
        ("tests/loopback/native/test_relay.py", ["lint", "unit"]),
        ("tests/fuzz/parsers.py", ["lint", "unit"]),
        ("tests/fuzz/packet_fuzz.c", ["lint", "unit", "cext"]),
        ("tests/sim/test_sim_model.py", ["lint", "unit"]),
        ("tests/cext/lines.h", ["lint", "unit", "cext"]),
        ("tests/lab/test_lab_tun.py", ["lint", "unit", "lab", "relay"]),
        ("tests/lab/rig/topology.py", ["lint", "unit", "lab", "relay", "demo", "control", "first-hour"]),
        ("tests/lab/rig/demo_sites.py", ["lint", "unit", "demo"]),
        ("tests/lab/demo.py", ["lint", "unit", "demo"]),
        ("tests/lab/control/test_lab_sites.py", ["lint", "unit", "control"]),
        ("tests/loopback/control/test_contract.py", ["lint", "unit", "control"]),
        ("bench/overlays/wire.c", ["lint", "unit", "lab", "relay"]),
        ("tests/kit/builders.py", ALL),
        ("cext/sctp/association.c", ALL),
        ("conflux/node.py", ALL),
        ("pyproject.toml", ALL),
        ("constraints.txt", ALL),
        (".ci/prepare", ALL),
        ("a path that no rule knows", ALL),
    ],
)
def test_a_change_runs_what_it_needs_and_says_why(checkout: Checkout, path: str, lanes: list[str]) -> None:
    checkout.write(path, "changed\n")
    for _ in range(2):  # not committed yet, then committed
        found, why = checkout.lanes()
        assert found == lanes
        for lane in ALL:
            assert (f"{lane}, for {path}" in why) == (lane in lanes)
            assert (f"not {lane}" in why) == (lane not in lanes)
        checkout.commit()


def test_what_each_path_needs_is_added_up(checkout: Checkout) -> None:
    checkout.write("docs/new.md")
    checkout.write("tests/lab/new.py")
    assert checkout.lanes()[0] == ["lint", "unit", "lab", "relay"]
    checkout.git("rm", "--quiet", "conflux/node.py")
    assert checkout.lanes()[0] == ALL


def test_in_doubt_everything_runs(checkout: Checkout) -> None:
    assert checkout.lanes() == (ALL, "lanes: all of them: nothing differs from origin/main\n")
    checkout.write("README.md", "changed\n")
    assert checkout.lanes("none") == (ALL, "lanes: all of them: CONFLUX_BASE says so\n")
    assert checkout.lanes("gone") == (ALL, "lanes: all of them: there is no commit gone here\n")
    checkout.git("update-ref", "-d", "refs/remotes/origin/main")
    assert checkout.lanes() == (ALL, "lanes: all of them: there is no origin/main to compare with\n")
    shutil.rmtree(checkout.root / ".git")
    assert checkout.lanes() == (ALL, "lanes: all of them: this is no git checkout\n")


def test_a_base_can_be_named(checkout: Checkout) -> None:
    checkout.write("cext/sctp/association.c")
    checkout.commit()
    checkout.write("docs/new.md")
    assert checkout.lanes()[0] == ALL
    assert checkout.lanes("HEAD")[0] == ["lint", "unit"]
