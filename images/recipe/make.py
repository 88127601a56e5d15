"""Make a board's image: `make image BOARD=NAME`.

build/image/
    conflux-BOARD.img.zst, .img     what is written to a card
    conflux-BOARD.raucb             the signed bundle that updates a board
    conflux-BOARD.sha256            of both
    conflux-BOARD.spdx.json, conflux-BOARD.licences.txt
    imager.json                     a repository for Raspberry Pi Imager, of all images that are there
    keys/                           made once: who signs bundles (KEYS=DIR for others)
    cache/, log/, tools             stages under the hash of their inputs; what programs said; Debian's tools
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from recipe import imager, papers
from recipe.board import Board, RecipeError, load, names
from recipe.card import Card, Made
from recipe.debian import ARCH, FIRMWARE_PACKAGES, MIRROR, SUITE, Debian
from recipe.stages import Stages
from recipe.tree import PACKAGE_SOURCES, Trees
from recipe.workshop import Workshop, output_of, run

VERSION = re.compile(r"[0-9]+(\.[0-9]+)*(\+[0-9]+(\.[0-9]+)*)?\Z")
OWN_VERSION = re.compile(r'^__version__ = "(.*)"', re.MULTILINE)
IMAGE_SOURCES = (*PACKAGE_SOURCES, "images", "firmware")
IMAGE_MB_MAX = 250
USAGE = """usage: images/build BOARD

    KEYS=DIR            sign with other keys than those that are made in build/image/keys
    MIRROR=URL          of Debian
    URL=ADDRESS         where the images will be, for imager.json
    IMAGE_VERSION=...   another version than that of the sources

boards: """


def date_of(tree: Path, paths: tuple[str, ...]) -> int:
    """Return when the last commit was that changed any of these paths, in Unix seconds."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    owner = tree / ".ci/as-owner"
    try:
        said = output_of(owner, "git", "-C", tree, "log", "-1", "--format=%ct", "--", *paths).strip()
    except RecipeError:
        said = ""
    return int(said) if said else int((tree / "CHANGELOG.md").stat().st_mtime)


def version_of(tree: Path, seconds: int) -> str:
    """Return the version of an image: the program's, and the time of the sources.  Raises RecipeError."""
    match = OWN_VERSION.search((tree / "conflux/__init__.py").read_text())
    own = match[1] if match else "0"
    version = os.environ.get("IMAGE_VERSION") or f"{own}+{datetime.fromtimestamp(seconds, UTC):%Y%m%d.%H%M%S}"
    if not VERSION.match(version):
        raise RecipeError(f"IMAGE_VERSION={version}: not NUMBERS[+NUMBERS], as 0.1.0+20261201.2")
    return version


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(content: Path | str, target: Path) -> None:
    """Put a file or text where people look for it, whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    if isinstance(content, str):
        part.write_text(content)
    else:
        run("cp", "--sparse=always", "--reflink=auto", content, part)
    part.replace(target)


def contents(shop: Workshop, base: Path, made: Made) -> list[papers.Package]:
    """Return all packages of an image, with hashes and licences."""
    root = made.tree / "root"
    lists = [each.read_text() for each in sorted((base / "lists").iterdir())]
    debian = papers.with_archives(papers.installed((root / "var/lib/dpkg/status").read_text()), papers.archives(lists))
    debian = papers.with_licences(debian, root / "usr/share/doc")
    lists = [each.read_text() for each in sorted((made.firmware / "lists").iterdir())]
    firmware = papers.newest(lists, FIRMWARE_PACKAGES)
    firmware = papers.with_licences(firmware, made.firmware / "root/usr/share/doc")
    requirements = shop.tree / f"build/package/wheels-{SUITE}-{ARCH}/requirements.txt"
    carried = papers.pinned(requirements.read_text()) if requirements.is_file() else []
    return [*debian, *firmware, *carried]


def keys_of(shop: Workshop) -> Path:
    """Return the folder of the keys that sign bundles: KEYS, or one that is made here.  Raises RecipeError."""
    given = os.environ.get("KEYS")
    folder = Path(given).resolve() if given else shop.place / "keys"
    if not given:
        shop.host([shop.tree / "images/rauc/keys", folder], "keys")
    for name in ("keyring.pem", "release.pem", "release.key"):
        if not (folder / name).is_file():
            raise RecipeError(f"KEYS={folder}: there is no {name} (images/rauc/keys makes a set)")
    return folder


def figures(place: Path, board: Board, record: dict[str, object], compressed_mb: float) -> None:
    """Add to build/image.json what this build took; what others wrote there stays."""
    path = place.parent / "image.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict):
        known = {}
    known.setdefault("boards", {})[board.name] = record
    known["compressed_mb"] = compressed_mb
    put(json.dumps(known, indent=1, sort_keys=True) + "\n", path)


def listed(place: Path, tree: Path, url: str | None) -> str:
    """Return imager.json for all images that are there."""
    entries = []
    for path in sorted(place.glob("conflux-*.json")):
        if not path.name.endswith(".image.json"):
            continue
        known = json.loads(path.read_text())
        file = place / known.pop("file")
        if file.is_file():
            address = f"{url.rstrip('/')}/{file.name}" if url else file.as_uri()
            entries.append(imager.Entry(url=address, devices=tuple(known.pop("devices")), **known))
    return imager.repository((tree / "images/imager.json.in").read_text(), entries)


def build(tree: Path, name: str) -> None:
    """Make everything of one board.  Raises RecipeError."""
    board = load(tree / "images/boards", name)
    place = tree / "build/image"
    shop = Workshop(tree, place)
    stages = Stages(place / "cache", shop.say)
    started = time.monotonic()
    version = version_of(tree, date_of(tree, IMAGE_SOURCES))
    shop.say(f"conflux-{board.name} {version}")
    debian = Debian(shop, stages, os.environ.get("MIRROR") or MIRROR)
    trees = Trees(debian, date_of(tree, PACKAGE_SOURCES))
    # The long one is emulated, on one core; what it does not need is made beside it.
    shop.tools = debian.tools()
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(debian.base, board.kernel)
        link = place / "tools"
        link.unlink(missing_ok=True)
        link.symlink_to(shop.tools.relative_to(place))
        keys = keys_of(shop)
        debian.firmware()
        trees.package()
        base = coming.result()
    made = Made(trees.tree(board.kernel), trees.kernel(board.kernel), debian.firmware())
    card = Card(shop, stages, board, made, version, keys)
    disk, packed, bundle = card.disk(), card.packed(), card.bundle()

    out = place / f"conflux-{board.name}"
    image, compressed, update = (out.with_name(f"{out.name}.{end}") for end in ("img", "img.zst", "raucb"))
    put(disk / "disk.img", image)
    put(packed / "disk.img.zst", compressed)
    put(bundle / "update.raucb", update)
    sums = {each.name: sha256_of(each) for each in (image, compressed, update)}
    put("".join(f"{digest}  {file}\n" for file, digest in sums.items()), out.with_name(f"{out.name}.sha256"))
    packages = contents(shop, base, made)
    seconds = date_of(tree, IMAGE_SOURCES)
    put(papers.spdx(out.name, version, seconds, packages), out.with_name(f"{out.name}.spdx.json"))
    put(papers.licence_list(out.name, version, packages), out.with_name(f"{out.name}.licences.txt"))
    entry = {
        "file": compressed.name,
        "name": f"Conflux for {board.title}",
        "description": f"Conflux {version} on Debian {SUITE}, for {board.title}",
        "extract_size": image.stat().st_size,
        "extract_sha256": sums[image.name],
        "image_download_size": compressed.stat().st_size,
        "image_download_sha256": sums[compressed.name],
        "release_date": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}",
        "devices": list(board.devices),
    }
    put(json.dumps(entry, indent=1) + "\n", out.with_name(f"{out.name}.image.json"))
    put(listed(place, tree, os.environ.get("URL")), place / "imager.json")

    megabytes = round(compressed.stat().st_size / 1e6, 1)
    took = round(time.monotonic() - started, 1)
    record: dict[str, object] = {
        "version": version,
        "compressed_mb": megabytes,
        "raw_mb": round(image.stat().st_size / 1e6, 1),
        "bundle_mb": round(update.stat().st_size / 1e6, 1),
        "packages": len(packages),
        "seconds": took,
        "stage_seconds": stages.seconds,
    }
    figures(place, board, record, megabytes)
    shop.say(f"{compressed.relative_to(tree)}: {megabytes} MB, {record['raw_mb']} MB unpacked, in {took:.0f} s")
    if megabytes > IMAGE_MB_MAX:
        raise RecipeError(f"{compressed.name} takes {megabytes} MB, more than {IMAGE_MB_MAX}")


def main(tree: Path, arguments: list[str]) -> int:
    """Make the image that the command line names; return the exit status."""
    boards = names(tree / "images/boards")
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE + " ".join(boards), file=sys.stderr)
        return 2
    try:
        load(tree / "images/boards", arguments[0])
    except RecipeError as error:
        print(f"image: {error}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print(f"image: this needs root, for files of a board's own users: sudo make image BOARD={arguments[0]}")
        return 1
    place = tree / "build/image"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("image: another build runs in this tree; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            free = shutil.disk_usage(place).free
            if free < 6e9:
                raise RecipeError(f"{place}: {free / 1e9:.1f} GB are free, a build takes 6")
            build(tree, arguments[0])
        except RecipeError as error:
            print(f"image: {error}", file=sys.stderr)
            return 1
    return 0
