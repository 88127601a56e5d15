"""The list of images that Raspberry Pi Imager reads: https://github.com/raspberrypi/rpi-imager, doc/json-schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from recipe.board import RecipeError


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.  Sizes are bytes; release_date is YYYY-MM-DD; devices are Imager's names."""

    name: str
    description: str
    url: str
    extract_size: int
    extract_sha256: str
    image_download_size: int
    image_download_sha256: str
    release_date: str
    devices: tuple[str, ...]


def repository(template: str, entries: Iterable[Entry]) -> str:
    """Return the list for a template of it, which has what all entries share.  Raises RecipeError."""
    try:
        shared = json.loads(template)
        every = dict(shared["every"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"images/imager.json.in: {error!r}") from None
    listed = [{**every, **{k: v for k, v in asdict(each).items() if v != ()}} for each in entries]
    return json.dumps({"os_list": listed}, indent=1) + "\n"
