"""Versions of images, and which bundle a board takes: the right board's, and none below the floor of what it runs."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from conflux.errors import printable

VERSION_CHARS_MAX = 64
IMAGE_BYTES_MAX = 4096

_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}(?:\+\d{1,9}(?:\.\d{1,9}){0,3})?", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)


class Version(NamedTuple):
    """A version of images, such as 0.2.0+20261201: numbers, and after the plus those of the build.

    Ordered by numbers; without a plus it stands before every build of it.
    """

    numbers: tuple[int, ...]
    build: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the version that a text is.  Raises ValueError."""
        if len(text) > VERSION_CHARS_MAX or not _VERSION.fullmatch(text):
            raise ValueError(f"{printable(text[:VERSION_CHARS_MAX])!r} is no version such as 0.2.0+20261201")
        numbers, _, build = text.partition("+")
        return cls(_numbers(numbers), _numbers(build) if build else ())


def _numbers(text: str) -> tuple[int, ...]:
    """Return numbers of equal rank: 0.2 is 0.2.0."""
    numbers = [int(number) for number in text.split(".")]
    return tuple(numbers + [0] * (4 - len(numbers)))


class Image(NamedTuple):
    """The image that a board runs.

    compatible: which bundles fit, as RAUC calls it.  floor: the oldest version that this image lets a board go to.
    """

    board: str
    version: str
    compatible: str
    floor: str

    @classmethod
    def parse(cls, text: str, floor: str) -> Self:
        """Return what an image says of itself: lines BOARD=, VERSION=, COMPATIBLE=, and a floor.  Raises ValueError."""
        if len(text) > IMAGE_BYTES_MAX:
            raise ValueError("it is too long")
        said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        for name in ("BOARD", "COMPATIBLE"):
            if not _WORD.fullmatch(said.get(name, "")):
                raise ValueError(f"{name}= is missing, or no word")
        for version in (said.get("VERSION", ""), floor.strip()):
            Version.parse(version)
        return cls(said["BOARD"], said["VERSION"], said["COMPATIBLE"], floor.strip())


def refusal(compatible: str, version: str, image: Image) -> str | None:
    """Return why a board does not take a bundle, or None if it does.  compatible, version: as the bundle says."""
    if compatible != image.compatible:
        return f"it is for {printable(compatible)}, and this board is {image.compatible}"
    try:
        offered = Version.parse(version)
    except ValueError as error:
        return str(error)
    if offered < Version.parse(image.floor):
        return f"version {version} is older than {image.floor}, the oldest that {image.version} goes back to"
    return None
