"""The grammar of `conflux update`."""

from __future__ import annotations

import argparse

from conflux.cli.grammar import Commands, Help, Parser, adder, furnish, json_option


def add_update(commands: Commands) -> None:
    """Add `conflux update`."""
    update = adder(commands)(
        "update",
        "update:update",
        "install an update of a board image, or show what became of one",
        "conflux update conflux-rpi4.raucb --reboot\n  conflux update --status",
    )
    update.usage = (
        "conflux update FILE|URL [--reboot] [--json]\n       conflux update --reboot [--json]\n"
        "       conflux update --status [--json]\n       conflux update mark-good [--json]\n"
        "       conflux update rollback [--reboot] [--json]"
    )
    update.add_argument("bundle", type=bundle, metavar="FILE|URL", nargs="?", help="the bundle, with the ending .raucb")
    update.add_argument("--reboot", action="store_true", help="restart into the update; by itself: into one that waits")
    update.add_argument("--status", action="store_true", help="show what runs, what waits, and the last verdict")
    json_option(update)
    update.apart = {"mark-good": _mark_good(), "rollback": _rollback()}


def _mark_good() -> Parser:
    mark = Parser(prog="conflux update mark-good", formatter_class=Help)
    furnish(
        mark,
        "update:mark_good",
        "keep what runs now, whatever the checks of an update say",
        "conflux update mark-good",
    )
    json_option(mark)
    return mark


def _rollback() -> Parser:
    back = Parser(prog="conflux update rollback", formatter_class=Help)
    furnish(
        back,
        "update:rollback",
        "have the other slot start next, with what it holds",
        "conflux update rollback --reboot",
    )
    back.add_argument("--reboot", action="store_true", help="restart into it")
    json_option(back)
    return back


def bundle(text: str) -> str:
    """Return the file or the address of a bundle."""
    scheme, found, rest = text.partition("://")
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("must be a file, or an address that begins with https:// or http://")
    if found and scheme.isalpha():
        if scheme.lower() not in ("http", "https"):
            raise argparse.ArgumentTypeError(f"must begin with https:// or http://, not {scheme}://")
        if not rest.split("/")[0] or not text.isascii() or any(not sign.isprintable() or sign == " " for sign in text):
            raise argparse.ArgumentTypeError("must be an address with a host, and without spaces")
    return text
