"""A board's scripts about slots: the tries given back, the Pi 5's backend of RAUC, the hook of a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.tree import TREE
from recipe import layout
from recipe.card import BOOTLOADERS, HANDLERS

from conflux.board.trial import Trial

BOARD = TREE / "firmware" / "tree" / "usr" / "lib" / "conflux-board"
HOOK = TREE / "images" / "rauc" / "slot-hook"
AUTOBOOT = (TREE / "images" / "boards" / "rpi5" / "autoboot.txt").read_text()
CMDLINE = (TREE / "images" / "boards" / "rpi5" / "cmdline.txt").read_text()


def run(command: list[str | Path], **environment: object) -> subprocess.CompletedProcess[str]:
    given = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run([*map(str, command)], env=given, capture_output=True, text=True, check=False)


# Reads and writes the file as GRUB's own does: a header, NAME=VALUE lines, and # up to 1024 bytes; anything else fails.
EDITOR = """\
#!{python}
import sys
from pathlib import Path
place, word, *given = sys.argv[1:]
data = Path(place).read_bytes()
head = b"# GRUB Environment Block\\n"
if len(data) != 1024 or not data.startswith(head):
    sys.exit("grub-editenv: error: invalid environment block.")
known = dict(line.split("=", 1) for line in data[len(head) :].rstrip(b"#").decode().splitlines())
if word == "list":
    print("\\n".join("=".join(pair) for pair in known.items()))
elif word == "set":
    known.update(pair.split("=", 1) for pair in given)
    text = "".join("=".join(pair) + "\\n" for pair in known.items())
    Path(place).write_bytes((head + text.encode()).ljust(1024, b"#"))
else:
    sys.exit("usage")
"""
GRUB_RECORD = layout.grub_environment().replace(b"B_TRY=0", b"B_TRY=2")
CONFIGURED = {
    "uboot": BOOTLOADERS["uboot"],
    "grub": BOOTLOADERS["grub"],
    "noop": "noop",
    "custom": f"{BOOTLOADERS['tryboot']}\n\n{HANDLERS}",
}


# ── tries ──


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board's file system, with programs of the boot loaders that write down what they are asked."""
    for name in ("proc", "data/update", "etc/rauc", "bin", "bootstate", "usr/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/cmdline").write_text("root=PARTLABEL=system_b ro rauc.slot=B quiet\n")
    for name in ("fw_setenv", "fw_printenv"):
        program = tmp_path / "bin" / name
        program.write_text(
            f"#!/bin/sh\n[ -e {tmp_path}/record ] || exit 1\n"
            f'case "$*" in *set* | *LEFT*) echo "{name} $*" >>{tmp_path}/asked ;; esac\n'
        )
        program.chmod(0o755)
    (tmp_path / "record").touch()
    (tmp_path / "bin/grub-editenv").write_text(EDITOR.format(python=sys.executable))
    (tmp_path / "bin/grub-editenv").chmod(0o755)
    (tmp_path / "bootstate/grubenv").write_bytes(GRUB_RECORD)
    (tmp_path / "usr/lib/conflux-board").symlink_to(BOARD)
    return tmp_path


def asked(root: Path, bootloader: str, **environment: object) -> str:
    (root / "etc/rauc/system.conf").write_text(f"[system]\nbootloader={CONFIGURED[bootloader]}\n")
    done = run([BOARD / "boot-count"], ROOT=root, PATH=f"{root / 'bin'}:{os.environ['PATH']}", **environment)
    assert done.returncode == 0, done.stderr
    return (root / "asked").read_text() if (root / "asked").exists() else ""


def test_a_slot_without_an_update_gets_its_tries_back(root):
    assert asked(root, "uboot") == f"fw_setenv -c {root}/etc/fw_env.config BOOT_B_LEFT 3\n"


def test_grub_counts_upwards_in_its_file(root):
    asked(root, "grub")
    assert (root / "bootstate/grubenv").read_bytes() == GRUB_RECORD.replace(b"B_TRY=2", b"B_TRY=0")


def test_a_slot_under_trial_does_not(root):
    (root / "data/update/trial.json").write_text("{}")
    assert asked(root, "uboot") == ""
    asked(root, "grub")
    assert (root / "bootstate/grubenv").read_bytes() == GRUB_RECORD


def test_a_boot_loader_that_does_not_count_is_told_nothing(root):
    assert asked(root, "noop") == ""


def test_a_boot_without_slots_is_no_failure(root):
    (root / "proc/cmdline").write_text("root=/dev/sda1\n")
    assert asked(root, "uboot") == ""


@pytest.mark.parametrize("bootloader", ["uboot", "grub"])
def test_a_board_that_was_started_without_our_loader_is_no_failure(root, bootloader):
    (root / "record").unlink()
    (root / "bootstate/grubenv").unlink()
    assert asked(root, bootloader) == ""
    assert not (root / "bootstate/grubenv").exists()


def test_what_was_wrong_with_an_update_is_shown_at_each_boot(root):
    shown = root / "run/conflux-board/notices/update"
    asked(root, "uboot")
    assert not shown.exists()
    (root / "data/update/notice").write_text("update: 0.2.0 was not taken\n")
    (root / "data/update/trial.json").write_text("{}")
    asked(root, "uboot")
    assert shown.read_text() == "update: 0.2.0 was not taken\n"
    assert shown.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("slot", "code"), [("A", 1), ("B", 0)])
def test_only_the_slot_of_the_update_is_under_trial(root, slot, code):
    trial = Trial("B", "0.2.0", "A", "0.1.0", "boot-1", True, (), ())
    (root / "data/update/trial.json").write_text(trial.encode())
    (root / "proc/cmdline").write_text(f"quiet rauc.slot={slot}\n")
    assert run([BOARD / "under-trial"], ROOT=root).returncode == code


def test_what_was_found_good_is_not_given_up_although_the_disk_keeps_its_trial(root):
    trial = Trial("B", "0.2.0", "A", "0.1.0", "boot-1", True, (), ())
    (root / "data/update/trial.json").write_text(trial.encode())
    (root / "run/conflux-board").mkdir(parents=True)
    (root / "run/conflux-board/kept").touch()
    assert run([BOARD / "under-trial"], ROOT=root).returncode == 1


def test_without_an_update_nothing_is_under_trial(root):
    assert run([BOARD / "under-trial"], ROOT=root).returncode != 0


# ── Raspberry Pi 5 ──


class Pi:
    """The folders of a Pi 5 that the backend sees, and its firmware."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bootconfig"
        self.folder.mkdir()
        self.argument = folder / "run" / "systemd" / "reboot-param"
        self.line = folder / "cmdline"
        (self.folder / "autoboot.txt").write_text(AUTOBOOT)
        self.boots("A")

    def boots(self, slot: str) -> None:
        self.line.write_text(CMDLINE.replace("rauc.slot=A", f"rauc.slot={slot}"))
        self.argument.unlink(missing_ok=True)  # it is on a tmpfs

    def restart(self) -> str:
        """Restart as the firmware does; return the slot that starts."""
        tried = self.argument.exists() and self.argument.read_text() == "0 tryboot\n"
        sections: dict[str, dict[str, str]] = {}
        for line in (self.folder / "autoboot.txt").read_text().splitlines():
            if line.startswith("["):
                here = sections.setdefault(line.strip("[]"), {})
            elif line:
                name, _, value = line.partition("=")
                here[name] = value
        assert sections["all"]["tryboot_a_b"] == "1"
        slot = {"3": "A", "4": "B"}[sections["tryboot" if tried else "all"]["boot_partition"]]
        self.boots(slot)
        return slot

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(
            [BOARD / "tryboot", *words],
            BOOTCONFIG=self.folder,
            REBOOT_ARGUMENT=self.argument,
            COMMAND_LINE=self.line,
        )

    def say(self, *words: str) -> str:
        done = self.ask(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def test_a_flashed_pi_starts_a_and_both_slots_are_good(pi):
    assert (pi.say("get-primary"), pi.say("get-current")) == ("A", "A")
    assert (pi.say("get-state", "A"), pi.say("get-state", "B")) == ("good", "good")
    assert pi.restart() == "A"


def test_an_update_starts_once_and_stays_once_it_is_good(pi):
    pi.say("set-state", "B", "bad")  # RAUC, before it writes
    pi.say("set-state", "B", "good")
    pi.say("set-primary", "B")
    assert pi.say("get-primary") == "B"
    assert pi.restart() == "B"
    assert pi.say("get-current") == "B"
    pi.say("set-state", "B", "good")
    assert pi.say("get-primary") == "B"
    assert pi.restart() == "B"
    assert pi.restart() == "B"


def test_an_update_without_a_verdict_is_left_at_the_next_restart(pi):
    pi.say("set-primary", "B")
    assert pi.restart() == "B"
    assert pi.restart() == "A"


def boots_up(root: Path, pi: Pi) -> None:
    """Run boot-count on a Pi 5."""
    (root / "proc/cmdline").write_text(pi.line.read_text())
    asked(root, "custom", BOOTCONFIG=pi.folder, REBOOT_ARGUMENT=pi.argument, COMMAND_LINE=pi.line)


def test_what_a_person_went_back_to_stays(pi, root):
    pi.say("set-primary", "B")
    assert pi.restart() == "B"
    boots_up(root, pi)
    assert pi.restart() == "B"


def test_an_update_stays_only_once_it_is_judged(pi, root):
    pi.say("set-primary", "B")
    assert pi.restart() == "B"
    (root / "data/update/trial.json").write_text("{}")
    boots_up(root, pi)
    assert pi.restart() == "A"


def test_a_bad_update_is_left_and_stays_bad(pi):
    pi.say("set-primary", "B")
    assert pi.restart() == "B"
    pi.say("set-state", "B", "bad")
    assert pi.restart() == "A"
    pi.say("set-state", "A", "good")
    assert (pi.say("get-state", "B"), pi.say("get-primary")) == ("bad", "A")
    assert pi.restart() == "A"


def test_an_update_may_be_taken_back_before_the_restart(pi):
    pi.say("set-primary", "B")
    pi.say("set-primary", "A")
    assert pi.restart() == "A"


def test_the_next_update_goes_the_other_way(pi):
    pi.say("set-primary", "B")
    pi.restart()
    pi.say("set-state", "B", "good")
    pi.say("set-primary", "A")
    assert pi.restart() == "A"
    pi.say("set-state", "A", "good")
    assert pi.restart() == "A"


def test_the_firmwares_file_is_short_enough_and_nothing_is_left_beside_it(pi):
    pi.say("set-primary", "B")
    pi.restart()
    pi.say("set-state", "B", "good")
    assert (pi.folder / "autoboot.txt").stat().st_size < 512
    assert [file.name for file in pi.folder.iterdir()] == ["autoboot.txt"]


@pytest.mark.parametrize(
    "words", [(), ("get",), ("set-primary",), ("set-primary", "C"), ("get-state", ""), ("set-state", "A", "fine")]
)
def test_a_word_that_the_backend_does_not_know_changes_nothing(pi, words):
    before = (pi.folder / "autoboot.txt").read_text()
    done = pi.ask(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("tryboot: ")
    assert (pi.folder / "autoboot.txt").read_text() == before


@pytest.mark.parametrize("text", ["", "[all]\nboot_partition=9\n", "[tryboot]\nboot_partition=3\n"])
def test_a_damaged_autoboot_is_said(pi, text):
    (pi.folder / "autoboot.txt").write_text(text)
    done = pi.ask("get-primary")
    assert done.returncode == 1
    assert "autoboot.txt" in done.stderr


def test_a_damaged_autoboot_is_no_reason_to_try_a_slot(pi):
    (pi.folder / "autoboot.txt").write_text("")
    assert pi.ask("set-primary", "B").returncode == 1
    assert not pi.argument.exists()


def test_a_damaged_autoboot_is_written_anew_by_the_slot_that_runs_and_is_good(pi):
    (pi.folder / "autoboot.txt").write_text("")
    pi.say("set-state", "A", "good")
    assert pi.say("get-primary") == "A"
    assert (pi.folder / "autoboot.txt").read_text() == AUTOBOOT


# ── the hook of a bundle ──


@pytest.mark.parametrize(("slot", "small"), [("A", "a"), ("B", "b")])
def test_the_slot_that_is_written_has_its_own_name_in_its_command_line(tmp_path, slot, small):
    (tmp_path / "cmdline.txt").write_text(CMDLINE)
    done = run([HOOK, "slot-post-install"], RAUC_SLOT_MOUNT_POINT=tmp_path, RAUC_SLOT_BOOTNAME=slot)
    assert done.returncode == 0, done.stderr
    line = (tmp_path / "cmdline.txt").read_text()
    assert f"root=PARTLABEL=system_{small} " in line
    assert f"rauc.slot={slot} " in line
    assert len(line) == len(CMDLINE)


def test_a_slot_whose_boot_loader_knows_the_name_is_left_alone(tmp_path):
    done = run([HOOK, "slot-post-install"], RAUC_SLOT_MOUNT_POINT=tmp_path, RAUC_SLOT_BOOTNAME="B")
    assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
