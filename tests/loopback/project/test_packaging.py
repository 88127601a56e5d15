"""The scripts of packaging/ that need no package: which key a repository trusts, and the kernel's limits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.tree import TREE

PACKAGING = TREE / "packaging"
CONTROL = (
    "Package: conflux\nVersion: 1\nArchitecture: amd64\nMaintainer: Nobody <nobody@localhost>\nDescription: none\n"
)


class Gpg:
    """The keys of a folder."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.environment = {**os.environ, "GNUPGHOME": str(home)}

    def run(self, *words: str, given: str = "") -> str:
        command = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *words]
        done = subprocess.run(command, env=self.environment, input=given, capture_output=True, text=True, check=True)
        return done.stdout

    def make(self, name: str) -> str:
        """Make a key; return its fingerprint."""
        self.run("--quick-generate-key", name, "ed25519", "sign", "never")
        return self.prints(self.run("--with-colons", "--list-secret-keys", f"={name}"))[0]

    def prints(self, listed: str) -> list[str]:
        return [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]

    def inside(self, keys: str) -> list[str]:
        """Return the fingerprints of an exported text."""
        return self.prints(self.run("--with-colons", "--show-keys", given=keys))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=True)


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[Gpg]:
    if not shutil.which("gpg") or not shutil.which("apt-ftparchive"):
        pytest.skip("make repo needs gpg and apt-ftparchive")
    gpg = Gpg(tmp_path / "keys")
    yield gpg
    gpg.close()


def repository(gpg: Gpg, place: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Make a repository of an empty package in place/repo."""
    package = place / "conflux_1~deb12_amd64.deb"
    (place / "package" / "DEBIAN").mkdir(parents=True)
    (place / "package" / "DEBIAN" / "control").write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", place / "package", package], check=True)
    command = [PACKAGING / "repo", place / "repo", package]
    return subprocess.run(command, env={**gpg.environment, "KEY": key}, capture_output=True, text=True, check=False)


def test_boards_are_to_trust_the_key_that_signs_and_no_other_of_its_name(gpg: Gpg, tmp_path: Path) -> None:
    stranger = Gpg(tmp_path / "strangers")
    stranger.make("Ann of another house <ann@example.org.example.com>")
    gpg.run("--import", given=stranger.run("--armor", "--export"))
    stranger.close()
    ours = gpg.make("Ann <ann@example.org>")
    done = repository(gpg, tmp_path, "ann@example.org")
    assert done.returncode == 0, done.stderr
    assert gpg.inside((tmp_path / "repo/conflux.asc").read_text()) == [ours]
    assert f"signed by {ours}\n" in done.stderr
    sources = (tmp_path / "repo/bookworm/conflux.sources").read_text().partition("Signed-By:\n")[2]
    assert gpg.inside("\n".join(line[1:].removeprefix(".") for line in sources.splitlines()) + "\n") == [ours]


def test_a_name_of_two_secret_keys_signs_nothing(gpg: Gpg, tmp_path: Path) -> None:
    both = [gpg.make("Ann <ann@example.org>"), gpg.make("Ann <ann@example.org.example.com>")]
    done = repository(gpg, tmp_path, "ann@example.org")
    assert done.returncode == 1
    assert all(key in done.stderr for key in both)
    assert not list((tmp_path / "repo").rglob("InRelease"))


def test_a_key_without_its_secret_signs_nothing(gpg: Gpg, tmp_path: Path) -> None:
    stranger = Gpg(tmp_path / "strangers")
    stranger.make("Ann <ann@example.org>")
    gpg.run("--import", given=stranger.run("--armor", "--export"))
    stranger.close()
    done = repository(gpg, tmp_path, "ann@example.org")
    assert done.returncode == 1
    assert done.stderr == "repo: gpg has no secret key 'ann@example.org' here: gpg --list-secret-keys\n"


@pytest.mark.parametrize(("present", "after"), [(100, 4096), (4096, 4096), (5000, 5000)])
def test_installing_raises_a_limit_of_the_kernel_and_never_lowers_it(tmp_path: Path, present: int, after: int) -> None:
    wanted = tmp_path / "limits.conf"
    wanted.write_text("# a limit that each network namespace has\nnet.core.none = 7\nnet.core.somaxconn = 4096\n")
    limit = "/proc/sys/net/core/somaxconn"
    script = f'echo {present} >{limit} && sh "$1" "$2" && cat {limit}'
    own = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"]
    done = subprocess.run([*own, PACKAGING / "raise-limits", wanted], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{after}\n", "")


@pytest.mark.parametrize("script", ["install", "debian/conflux.postinst"])
def test_limits_are_set_by_what_only_raises_them(script: str) -> None:
    text = (PACKAGING / script).read_text()
    assert "/raise-limits" in text
    assert "sysctl --" not in text
