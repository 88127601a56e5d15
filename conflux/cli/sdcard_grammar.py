"""The grammar of `conflux sdcard`."""

from __future__ import annotations

import argparse

from conflux.cli.grammar import Commands, Help, Parser, json_option, node_name, path
from conflux.config.checks import Refused


def add_sdcard(commands: Commands) -> None:
    """Add `conflux sdcard` and its commands."""
    text = "flash an SD card, with what the board needs to know"
    group = commands.add_parser("sdcard", help=text, description=f"{text.capitalize()}.", formatter_class=Help)
    below = group.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    write = _add(
        below,
        "write",
        "write an image to a card, read it back, and put conflux.toml on it",
        "sudo conflux sdcard write conflux-rpi4.img.zst /dev/sdb --token-file t\n"
        "  sudo conflux realm invite --quiet |\n"
        "    sudo conflux sdcard write IMAGE /dev/sdb --token-file - --yes",
    )
    write.add_argument("image", type=path, metavar="IMAGE", help=".img, .img.zst or .img.xz")
    write.add_argument("device", type=path, metavar="DEVICE", help="the whole disk, as /dev/sdb or /dev/mmcblk0")
    write.add_argument("--yes", action="store_true", help="do not ask")
    _options(write)

    prepare = _add(
        below,
        "prepare",
        "put conflux.toml on a card, or into an image, that is written",
        "sudo conflux sdcard prepare /dev/sdb --token-file token --name attic",
    )
    prepare.add_argument("place", type=path, metavar="DEVICE|IMAGE", help="the whole disk, or an .img file")
    _options(prepare)


def _add(below: Commands, name: str, text: str, example: str) -> Parser:
    command = below.add_parser(name, help=text, formatter_class=Help)
    command.description = f"{text.capitalize()}."
    command.epilog = f"example:\n  {example}"
    command.set_defaults(run=f"sdcard:{name}")
    return command


def _options(command: Parser) -> None:
    """Add the options of what stands in conflux.toml on the card."""
    command.add_argument("--config", type=path, metavar="FILE", help="a conflux.toml for the card; other options win")
    command.add_argument("--token-file", type=path, metavar="FILE", help="the invitation; - is standard input")
    command.add_argument("--name", type=node_name, metavar="NAME", help="the board's name")
    command.add_argument("--ssh-key", type=path, metavar="FILE", action="append", help="a public key; repeatable")
    command.add_argument("--time-zone", type=zone, metavar="ZONE", help="as Europe/Berlin")
    command.add_argument("--wifi-ssid", metavar="SSID", help="a Wi-Fi network")
    command.add_argument("--wifi-country", type=country, metavar="CODE", help="two letters, as DE: where the board is")
    command.add_argument(
        "--wifi-password-file", type=path, metavar="FILE", help="its first line; without it, you are asked"
    )
    command.add_argument(
        "--force", action="store_true", help="unmount the card, or take a disk that does not say it is removable"
    )
    json_option(command)


def zone(text: str) -> str:
    """Return what looks like a time zone; whether there is one of this name, the card's check says."""
    from conflux.board.card import time_zone

    try:
        return time_zone(text)
    except Refused as refused:
        raise argparse.ArgumentTypeError(f"{refused}, not {text!r}") from None


def country(text: str) -> str:
    """Return the two letters of a country."""
    if not (len(text) == 2 and text.isascii() and text.isalpha()):
        raise argparse.ArgumentTypeError(f"must be two letters such as DE, not {text!r}")
    return text.upper()
