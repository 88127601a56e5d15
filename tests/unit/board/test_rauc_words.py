"""What RAUC prints, of the versions that Debian 12 (1.8) and 13 (1.13) have."""

from __future__ import annotations

import json

import pytest

from conflux.board.rauc_words import Bundle, Slot, Slots, bundle, progress, reason, slots

SALT, ROOT = "24" * 32, "fe" * 32
INFO = f"""\
Compatible: \t'conflux-rpi4'
Version:    \t'0.2.0+20261201'
Description:\t'(null)'
Bundle Format: \tverity
  Verity Salt: \t'{SALT}'
  Verity Hash: \t'{ROOT}'
  Verity Size: \t28672

2 Images:
  \x1b[1m[boot]\x1b[0m
\tFilename:  boot.vfat
"""


def status(booted: str, *, primary: str | None = "boot.1", version: str = "0.2.0") -> str:
    def pair(number: int, bootname: str) -> list[dict[str, object]]:
        written = {"bundle": {"version": version}} if number == 1 else {}
        state = "booted" if bootname == booted else "inactive"
        return [
            {f"boot.{number}": {"class": "boot", "bootname": bootname, "state": state, "boot_status": "good"}},
            {
                f"system.{number}": {
                    "class": "system",
                    "bootname": None,
                    "state": "active" if bootname == booted else "inactive",
                    "parent": f"boot.{number}",
                    "slot_status": written,
                }
            },
        ]

    return json.dumps({"boot_primary": primary, "slots": pair(0, "A") + pair(1, "B")})


def test_a_bundle_is_read():
    read = bundle(INFO)
    assert read == Bundle("conflux-rpi4", "0.2.0+20261201", bytes.fromhex(SALT), bytes.fromhex(ROOT), 28672)


@pytest.mark.parametrize("missing", ["Compatible", "Version", "Verity Salt", "Verity Hash", "Verity Size"])
def test_a_bundle_that_lacks_something_is_refused(missing):
    text = "\n".join(line for line in INFO.splitlines() if missing not in line)
    with pytest.raises(ValueError, match="makes no sense"):
        bundle(text)


def test_the_first_word_for_a_thing_counts():
    assert bundle(INFO + "Version: '9.9'\n").version == "0.2.0+20261201"


def test_slots_are_read():
    read = slots(status("A"))
    assert read == Slots((Slot("A", True, True, None), Slot("B", False, True, "0.2.0")), "A", "B")
    assert read.version("B") == "0.2.0"
    assert read.version("A") is None


def test_an_unknown_next_slot_is_none():
    assert slots(status("B", primary=None)).next is None
    assert slots(status("B", primary="boot.7")).next is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"slots": 1}', '{"slots": [1]}', '{"slots": [{"a": 1}]}', "[" * 9999]
)
def test_slots_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match="makes no sense"):
        slots(text)


def test_a_version_as_long_as_a_book_is_refused():
    with pytest.raises(ValueError, match="too long"):
        slots(status("A", version="1" * 1000))


def test_progress_is_read_and_other_lines_are_not():
    assert progress(" 40% Copying image to boot.1\n") == (40, "Copying image to boot.1")
    assert progress("100% Installing done.") == (100, "Installing done.")
    assert progress("installing") is None
    assert progress("Installing `/a.raucb` succeeded") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "signature verification failed: Verify error: unable to get local issuer certificate",
            "it is signed with a key that this board does not trust",
        ),
        (
            "signature verification failed: Verify error: self-signed certificate in certificate chain",
            "it is signed with a key that this board does not trust",
        ),
        (
            "signature verification failed: error:06880006:asn1 encoding routines::EVP lib",
            "its signature does not fit: it was changed, or damaged",
        ),
        (
            "Invalid bundle format: Signature data is no valid CMS",
            "its signature does not fit: it was changed, or damaged",
        ),
        (
            "Invalid bundle format: Signature size (11261243654421635111) exceeds bundle size",
            "it is cut short, or no update bundle",
        ),
        (
            "signature verification failed: Verify error: unsuitable certificate purpose",
            "it is signed with a certificate that is not for updates",
        ),
        (
            "LastError: Installation error: Failed updating slot boot.1: read: Input/output error",
            "its content does not fit its signature: it was changed, or damaged",
        ),
        ("rauc-Message: x\nLastError: something new\nInstalling failed", "LastError: something new"),
        ("", "RAUC does not say why"),
    ],
)
def test_a_refusal_is_said_in_words(said, meant):
    assert reason(said) == meant
