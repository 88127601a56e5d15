"""Which bundles a board takes, judged by the distribution's own rauc with the configuration that images have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import bundles
from kit.tree import TREE

from conflux.api.client import ApiClient
from conflux.board.rauc import Rauc, Refused
from conflux.board.release import Image
from conflux.board.running import Running, Units
from conflux.board.update import Board, check
from conflux.board.update_files import UpdateFiles

pytestmark = pytest.mark.skipif(
    not bundles.has_rauc(), reason="bundles need rauc, squashfs-tools, openssl and faketime"
)

FOREIGN = "it is signed with a key that this board does not trust"
CHANGED = "its content does not fit its signature: it was changed, or damaged"
UNSIGNED = "its signature does not fit: it was changed, or damaged"
CUT = "it is cut short, or no update bundle"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    bundles.keys(folder)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    return bundles.bundle(tmp_path_factory.mktemp("bundle") / "good.raucb", keys)


def board(tmp_path: Path, keyring: Path, *, floor: str = "0.1.0") -> Board:
    conf = bundles.conf(tmp_path / "system.conf", keyring)
    image = Image("rpi4", "0.3.0+1", "conflux-rpi4", floor)
    files = UpdateFiles(tmp_path / "update", tmp_path / "notices")
    return Board(
        Running(image, "A", "boot-1"), Rauc(conf), files, ApiClient(tmp_path / "socket"), lambda: Units(True, ())
    )


def refusal(board: Board, file: Path) -> str:
    with pytest.raises(Refused) as refused:
        check(board, file, lambda percent, words: None)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def changed(good: Path, place: Path, at: int) -> Path:
    """Return a copy of a bundle with one bit turned over.  at: from the end, if negative."""
    content = bytearray(good.read_bytes())
    content[at] ^= 1
    place.write_bytes(content)
    return place


def test_a_bundle_of_this_boards_is_taken(tmp_path, keys, good):
    told = []
    found = check(board(tmp_path, keys / "keyring.pem"), good, lambda percent, words: told.append((percent, words)))
    assert (found.compatible, found.version) == ("conflux-rpi4", "0.2.0+1")
    assert told[-1] == (100, "checking the content")


def test_a_foreign_bundle_is_refused(tmp_path, good):
    bundles.keys(tmp_path / "foreign")
    assert refusal(board(tmp_path, tmp_path / "foreign" / "keyring.pem"), good) == FOREIGN


@pytest.mark.parametrize("at", [200, 4096, 100_000, 500_000])
def test_a_bundle_whose_content_was_changed_is_refused_before_anything_is_written(tmp_path, keys, good, at):
    assert at < good.stat().st_size // 2
    file = changed(good, tmp_path / "changed.raucb", at)
    assert refusal(board(tmp_path, keys / "keyring.pem"), file) == CHANGED


@pytest.mark.parametrize("at", [-20, -100, -200, -400])
def test_a_bundle_whose_signature_was_changed_is_refused(tmp_path, keys, good, at):
    file = changed(good, tmp_path / "changed.raucb", at)
    said = refusal(board(tmp_path, keys / "keyring.pem"), file)
    assert said in (UNSIGNED, FOREIGN)  # one bit of the signer's certificate makes it somebody else's


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_bundle_that_is_cut_short_is_refused(tmp_path, keys, good, part):
    content = good.read_bytes()
    file = tmp_path / "cut.raucb"
    file.write_bytes(content[: int(len(content) * part)])
    assert refusal(board(tmp_path, keys / "keyring.pem"), file) == CUT


@pytest.mark.parametrize("noise", [b"", b"\0" * 9, b"hello\n" * 1000, b"hsqs" + b"\0" * 5000, b"\xff" * 4096])
def test_what_is_no_bundle_is_refused(tmp_path, keys, noise):
    (tmp_path / "noise.raucb").write_bytes(noise)
    said = refusal(board(tmp_path, keys / "keyring.pem"), tmp_path / "noise.raucb")
    assert said == CUT


def test_a_bundle_for_another_board_is_refused(tmp_path, keys):
    file = bundles.bundle(tmp_path / "rpi3.raucb", keys, board="rpi3")
    said = refusal(board(tmp_path, keys / "keyring.pem"), file)
    assert said == "it is for conflux-rpi3, and this board is conflux-rpi4"


def test_a_bundle_below_the_floor_of_what_runs_is_refused_whatever_its_own_floor_is(tmp_path, keys):
    file = bundles.bundle(tmp_path / "old.raucb", keys, version="0.1.9", floor="0.0")
    said = refusal(board(tmp_path, keys / "keyring.pem", floor="0.2.0"), file)
    assert said == "version 0.1.9 is older than 0.2.0, the oldest that 0.3.0+1 goes back to"


def test_a_board_with_a_clock_years_behind_takes_a_bundle(tmp_path, keys, good):
    conf = bundles.conf(tmp_path / "system.conf", keys / "keyring.pem")
    command = ["faketime", "2001-01-01", "rauc", f"--conf={conf}", "info", str(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── keys ──


def signed_by(tmp_path: Path, keys: Path, name: str) -> Path:
    return bundles.bundle(tmp_path / f"{name}.raucb", keys)


def takes(tmp_path: Path, keyring: bytes, file: Path) -> bool:
    """Say whether a board whose image had a keyring takes a bundle."""
    place = tmp_path / "keyring.pem"
    place.write_bytes(keyring)
    try:
        check(board(tmp_path, place), file, lambda percent, words: None)
    except Refused:
        return False
    return True


def test_keys_are_rotated_without_a_board_that_is_left_out(tmp_path):
    keys = tmp_path / "keys"
    bundles.keys(keys)
    first_image, first = (keys / "keyring.pem").read_bytes(), signed_by(tmp_path, keys, "first")

    bundles.keys(keys, "next")
    between_image, between = (keys / "keyring.pem").read_bytes(), signed_by(tmp_path, keys, "between")
    assert between_image.count(b"BEGIN CERTIFICATE") == 2
    assert takes(tmp_path, first_image, between), "a board of before takes what brings it both authorities"

    bundles.keys(keys, "switch")
    second = signed_by(tmp_path, keys, "second")
    assert takes(tmp_path, between_image, second)
    assert not takes(tmp_path, first_image, second), "a board that missed the step between"
    assert takes(tmp_path, (keys / "keyring.pem").read_bytes(), first), "still trusted, until they are retired"

    bundles.keys(keys, "retire")
    last_image = (keys / "keyring.pem").read_bytes()
    assert last_image.count(b"BEGIN CERTIFICATE") == 1
    assert takes(tmp_path, last_image, second)
    assert not takes(tmp_path, last_image, first)


def test_keys_that_are_there_stay_as_they_are(tmp_path):
    keys = tmp_path / "keys"
    bundles.keys(keys)
    before = {file.name: file.read_bytes() for file in keys.iterdir()}
    bundles.keys(keys)
    assert {file.name: file.read_bytes() for file in keys.iterdir()} == before


def test_nobody_else_reads_the_keys(tmp_path):
    keys = tmp_path / "keys"
    bundles.keys(keys)
    assert [file.name for file in keys.rglob("*") if file.stat().st_mode & 0o077] == []
    assert keys.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "usage"),
        (["keys", "rotate"], 2, "usage"),
        (["keys", "next", "now"], 2, "usage"),
        (["missing", "next"], 1, "there is no keyring.pem"),
        (["missing", "show"], 1, "there is no keyring.pem"),
        (["keys", "switch"], 1, "there is no next"),
        (["keys", "retire"], 1, "there are no former keys"),
    ],
)
def test_a_wrong_word_for_keys_is_one_line(tmp_path, keys, words, code, said):
    (tmp_path / "keys").symlink_to(keys)
    command = [sys.executable, str(TREE / "images" / "rauc" / "keys"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_own_keys_of_one_authority_without_its_key_sign(tmp_path, keys):
    """Who has the authority's key elsewhere has keyring.pem, release.pem and release.key here."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("keyring.pem", "release.pem", "release.key"):
        os.link(keys / name, own / name)
    bundles.keys(own)
    assert sorted(file.name for file in own.iterdir()) == ["keyring.pem", "release.key", "release.pem"]
    assert takes(tmp_path, (own / "keyring.pem").read_bytes(), signed_by(tmp_path, own, "own"))


# ── what RAUC is set up with ──


@pytest.mark.parametrize(
    ("bootloader", "handlers"),
    [
        ("uboot", ""),
        ("custom", "[handlers]\nbootloader-custom-backend=/usr/lib/conflux-board/tryboot"),
    ],
)
def test_rauc_takes_the_configuration_of_both_kinds_of_board(tmp_path, keys, good, bootloader, handlers):
    conf = bundles.conf(tmp_path / "c.conf", keys / "keyring.pem", bootloader=bootloader, handlers=handlers)
    assert Rauc(conf).info(good).version == "0.2.0+1"


def test_the_commands_of_the_page_about_keys_work_in_their_order(tmp_path):
    page = (TREE / "docs" / "how-to" / "updates.md").read_text()
    lines = [line.split()[1:] for line in page.splitlines() if line.startswith("images/rauc/keys ")]
    assert {tuple(words) for words in lines} == {
        ("~/conflux-keys", *word) for word in ((), ("show",), ("next",), ("switch",), ("retire",))
    }
    for _, *words in lines:
        bundles.keys(tmp_path / "conflux-keys", *words)
    assert (tmp_path / "conflux-keys" / "retired").is_dir()
