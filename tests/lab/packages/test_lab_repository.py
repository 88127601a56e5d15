"""Boards that install and upgrade from a signed repository of static files, handed out by a plain web server.

    attic, cellar   Debian boards that their systemd boots
    shop            python3 -m http.server, in the folder that packaging/repo makes

The later package is of the same code, with a later version.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rig.board import Board, package, suite
from rig.enter import STATE, TREE
from rig.topology import Host, Lab, LabFailure, wait_for

PORT = 8000
SOURCES = "/etc/apt/sources.list.d/conflux.sources"
# A mirror that fails is an error, and not a warning.
UPDATE = ("apt-get", "update", "--option", "APT::Update::Error-Mode=any")


class Shop(NamedTuple):
    """A repository and the host that hands it out."""

    host: Host
    folder: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host.addresses[0]}:{PORT}"

    @property
    def dist(self) -> Path:
        """What describes its packages for the boards' Debian."""
        return self.folder / "dists" / suite()

    def publish(self, *packages: Path, check: bool = True, key: str = "") -> subprocess.CompletedProcess[str]:
        """Add packages, signed by a key of gpg's; without one by the one that is made to try with."""
        environment = {**os.environ, "URL": self.url, "KEY": key, "GNUPGHOME": str(STATE / "gpg")}
        command = [TREE / "packaging" / "repo", self.folder, *packages]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=check)


class Town(NamedTuple):
    """Two boards that installed the first package from the shop, in one realm."""

    shop: Shop
    attic: Board
    cellar: Board


def reach(board: Board, name: str) -> None:
    """Wait until a board has an answer of a node: its daemon may be starting."""
    ping = ("conflux", "ping", name, "-c", "1")
    try:
        wait_for(lambda: board.run(*ping, check=False).returncode == 0, f"{name} answers {board.name}", within_s=30)
    except LabFailure as failure:
        said = board.run(*ping, check=False)
        raise LabFailure(f"{failure}\n{said.stdout}{said.stderr}\n{board.journal()}") from None


def version(board: Board) -> str:
    """Return the version of the package that a board has."""
    return board.run("dpkg-query", "--show", "--showformat=${Version}", "conflux").stdout


def candidate(board: Board) -> str:
    """Return the version that an upgrade would bring."""
    found = re.search(r"Candidate: (\S+)", board.run("apt-cache", "policy", "conflux").stdout)
    assert found
    return found[1]


def later() -> str:
    """Return the version of the later package."""
    return package("2").name.split("_")[1]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """Install on two boards what a repository has, and make a realm."""
    lab = Lab()
    lan = lab.lan()
    attic, cellar = (Board(lab.host(name, lan)) for name in ("attic", "cellar"))
    (STATE / "gpg").mkdir(mode=0o700)
    subprocess.run(
        ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "shop", "ed25519", "sign", "never"],
        env={**os.environ, "GNUPGHOME": str(STATE / "gpg")},
        check=True,
        capture_output=True,
    )
    shop = Shop(lab.host("shop", lan), STATE / "shop")
    shop.publish(package(), key="shop")
    serving = shop.host.spawn("http", "python3", "-m", "http.server", "--directory", shop.folder, str(PORT))
    shop_is_open = ("curl", "--fail", "--silent", "--output", "/dev/null", f"{shop.url}/conflux.asc")
    wait_for(lambda: attic.run(*shop_is_open, check=False).returncode == 0, "the shop", within_s=10, logs=(serving,))
    for board in (attic, cellar):
        # Debian's own mirror is not in reach, and the packages below are there.
        (board.root / "etc/apt/sources.list").write_text("")
        board.run("curl", "--fail", "--silent", "--output", SOURCES, f"{shop.url}/{suite()}/conflux.sources")
        board.run(*UPDATE)
        board.run("apt-get", "install", "--yes", "conflux", within_s=120)
    attic.run("conflux", "realm", "create", "home", "--node", "attic")
    attic.run("systemctl", "restart", "conflux")
    token = attic.run("conflux", "realm", "invite", "--quiet").stdout.split()[-1]
    cellar.run("conflux", "join", token, "--name", "cellar")
    cellar.run("systemctl", "restart", "conflux")
    reach(cellar, "attic")
    yield Town(shop, attic, cellar)
    for board in (attic, cellar):
        board.cut_power()
    lab.close()


def test_an_index_that_was_changed_is_refused(town: Town) -> None:
    """Somebody with the web server's rights, but not the key, offers another package."""
    index = town.shop.dist / "main" / f"binary-{package().stem.split('_')[-1]}"
    kept = {file: file.read_bytes() for file in index.rglob("*") if file.is_file()}
    for file in kept:
        file.unlink()
    text = kept[index / "Packages"].decode().replace(f"Version: {version(town.attic)}", "Version: 9")
    (index / "Packages").write_text(text)
    town.attic.run("find", "/var/lib/apt/lists", "-type", "f", "-delete")
    refused = town.attic.run(*UPDATE, check=False)
    assert refused.returncode != 0
    assert "Hash Sum mismatch" in refused.stderr or "File has unexpected size" in refused.stderr
    assert candidate(town.attic) != "9"
    for file, content in kept.items():
        file.write_bytes(content)
    town.attic.run(*UPDATE)


def test_an_index_signed_by_another_key_is_refused(town: Town) -> None:
    release = town.shop.dist / "InRelease"
    kept = release.read_bytes()
    detached = (town.shop.dist / "Release.gpg").read_bytes()
    release.write_bytes(kept.replace(b"Label: Conflux", b"Label: conflux"))
    (town.shop.dist / "Release.gpg").unlink()
    refused = town.attic.run(*UPDATE, check=False)
    assert refused.returncode != 0
    assert "signatures were invalid" in refused.stderr
    release.write_bytes(kept)
    (town.shop.dist / "Release.gpg").write_bytes(detached)
    town.attic.run(*UPDATE)


def test_a_package_is_not_published_twice_with_other_content(town: Town, tmp_path: Path) -> None:
    other = tmp_path / package().name
    other.write_bytes(package("2").read_bytes())
    refused = town.shop.publish(other, key="shop", check=False)
    assert refused.returncode == 1
    assert "was published before, with other content" in refused.stderr


def test_an_upgrade_keeps_the_state_and_what_was_configured(town: Town) -> None:
    cellar = town.cellar
    configuration = cellar.root / "etc/conflux/conflux.toml"
    configuration.write_text(configuration.read_text() + "\n# mine\n")
    before = {
        file.name: file.read_bytes() for file in (cellar.root / "var/lib/conflux").iterdir() if file.suffix == ".key"
    }
    assert before
    started = cellar.run("systemctl", "show", "conflux", "--property=MainPID").stdout

    town.shop.publish(package("2"), key="shop")
    cellar.run(*UPDATE)
    cellar.run("apt-get", "upgrade", "--yes", within_s=120)
    assert version(cellar) == later()
    assert cellar.run("systemctl", "show", "conflux", "--property=MainPID").stdout != started
    assert configuration.read_text().endswith("# mine\n")
    assert before == {name: (cellar.root / "var/lib/conflux" / name).read_bytes() for name in before}


def test_boards_of_both_versions_reach_each_other(town: Town) -> None:
    assert version(town.attic) != version(town.cellar) == later()
    reach(town.cellar, "attic")
    reach(town.attic, "cellar")


def test_the_version_before_is_still_there_to_go_back_to(town: Town) -> None:
    earlier = version(town.attic)
    town.cellar.run("apt-get", "install", "--yes", "--allow-downgrades", f"conflux={earlier}", within_s=120)
    assert version(town.cellar) == earlier
    reach(town.cellar, "attic")
