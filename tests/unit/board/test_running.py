"""What a board says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from conflux.board.running import running
from conflux.errors import UserError

SAID = {
    "usr/lib/conflux-board/image": "BOARD=rpi4\nVERSION=0.2.0+1\nCOMPATIBLE=conflux-rpi4\n",
    "usr/lib/conflux-board/floor": "0.1.0\n",
    "proc/cmdline": "root=PARTLABEL=system_b ro rauc.slot=B quiet\n",
    "proc/sys/kernel/random/boot_id": "6f0b\n",
}


def root(folder: Path, **changed: str | None) -> Path:
    for place, text in SAID.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        text = changed.get(file.name, text)
        if text is not None:
            file.write_text(text)
    return folder


def test_image_slot_and_boot_are_read(tmp_path):
    now = running(root(tmp_path))
    assert (now.image.board, now.image.version, now.image.floor, now.slot, now.boot) == (
        "rpi4",
        "0.2.0+1",
        "0.1.0",
        "B",
        "6f0b",
    )


@pytest.mark.parametrize("missing", ["image", "floor"])
def test_without_an_image_this_is_no_board(tmp_path, missing):
    with pytest.raises(UserError, match="this is no board image"):
        running(root(tmp_path, **{missing: None}))


@pytest.mark.parametrize(
    "line", ["", "rauc.slot=C", "rauc.slot=AB", "xrauc.slot=A", "quiet rauc.slot= x", "rauc.slot=A.b"]
)
def test_a_boot_without_a_slot_is_said(tmp_path, line):
    with pytest.raises(UserError, match="which slot runs"):
        running(root(tmp_path, cmdline=line))


@pytest.mark.parametrize("text", ["", "VERSION=1\n", "BOARD=../x\nVERSION=1\nCOMPATIBLE=c\n", "\0" * 9000])
def test_an_image_that_says_no_sense_is_said(tmp_path, text):
    with pytest.raises(UserError, match="conflux-board/image: "):
        running(root(tmp_path, image=text))
