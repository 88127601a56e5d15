"""What differs between boards: read from images/boards/NAME/board.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9-]{1,30}\Z")
SOURCES = ("board", "boot", "kernel", "dtb", "firmware")
GENERATED = ("boot.scr", "boot.efi")


class RecipeError(Exception):
    """The recipe, or what a person asked of it, is wrong: one line that says what, and where."""


@dataclass(frozen=True, slots=True)
class Board:
    """One kind of board.

    bootconfig, slot: what stands on the FAT partition that people edit, and on the two of a slot's kernel: each
    SOURCE:PATH, or one of GENERATED; "> PATH" after it says where it goes, else to the top.
    SOURCE: board (its folder), boot (images/boot), kernel, dtb, firmware (Debian's packages).
    state: who keeps which slot is next: "uboot", "grub", or "tryboot", a Raspberry Pi's firmware.
    """

    name: str
    title: str
    kernel: str  # "stable" or "backports"
    bootconfig: tuple[str, ...]
    slot: tuple[str, ...]
    state: str = "uboot"
    table: str = "gpt"  # or "hybrid": GPT, with an old table beside it
    efi: bool = False  # bootconfig is an EFI system partition
    devices: tuple[str, ...] = ()  # Raspberry Pi Imager's names of what it runs on
    experimental: bool = False

    @property
    def compatible(self) -> str:
        """The name that a bundle and a board compare."""
        return f"conflux-{self.name}"


def parse(name: str, text: str, where: str) -> Board:
    """Return the board that a board.toml describes.  Raises RecipeError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: {error}") from None
    known = {field.name: field for field in fields(Board)}
    values: dict[str, object] = {"name": name}
    for key, value in table.items():
        if key not in known or key == "name":
            raise RecipeError(f"{where}: there is no key {key}")
        if str(known[key].type).startswith("tuple"):
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise RecipeError(f"{where}: {key} is a list of texts")
            value = tuple(value)
        elif type(value).__name__ != known[key].type:
            raise RecipeError(f"{where}: {key} is of type {known[key].type}")
        values[key] = value
    missing = {"title", "kernel", "bootconfig", "slot"} - values.keys()
    if missing:
        raise RecipeError(f"{where}: {min(missing)} is missing")
    board = Board(**values)  # type: ignore[arg-type]  # looked at above
    if board.kernel not in ("stable", "backports"):
        raise RecipeError(f"{where}: kernel is stable or backports")
    if board.table not in ("gpt", "hybrid"):
        raise RecipeError(f"{where}: table is gpt or hybrid")
    if board.state not in ("uboot", "grub", "tryboot"):
        raise RecipeError(f"{where}: state is uboot, grub or tryboot")
    for each in board.bootconfig + board.slot:
        word, target = placed(each)
        source, _, path = word.partition(":")
        if word not in GENERATED and (source not in SOURCES or not path or ".." in path.split("/")):
            raise RecipeError(f"{where}: {each}: not SOURCE:PATH with one of {', '.join(SOURCES)}")
        if not target or target.startswith("/") or ".." in target.split("/"):
            raise RecipeError(f"{where}: {each}: {target!r} is no place on a partition")
    return board


def placed(each: str) -> tuple[str, str]:
    """Return the word for a file, and the path on the partition where it goes."""
    word, arrow, target = each.partition(" > ")
    return word, target if arrow else word.rpartition(":")[2].rpartition("/")[2]


def names(boards: Path) -> list[str]:
    """Return the names of all boards."""
    return sorted(path.parent.name for path in boards.glob("*/board.toml"))


def load(boards: Path, name: str) -> Board:
    """Return the board of a name.  Raises RecipeError."""
    if not NAME.match(name) or name not in names(boards):
        raise RecipeError(f"there is no board {name!r}: BOARD={'|'.join(names(boards))}")
    path = boards / name / "board.toml"
    return parse(name, path.read_text(), f"images/boards/{name}/board.toml")
