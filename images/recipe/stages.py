"""Stages of a build, each kept under the hash of what it was made from."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

KEPT_MAX = 2  # of one stage: this build's and the one before, so that two branches do not undo each other
SUMS = "SHA256SUMS"  # in the folder of every stage
SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def key_of(inputs: Mapping[str, str]) -> str:
    """Return the key of a stage: 16 hex digits of the hash of its named inputs."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        for text in (name, inputs[name]):
            digest.update(f"{len(text.encode())}:".encode() + text.encode())
    return digest.hexdigest()[:16]


def files_below(path: Path) -> Iterable[Path]:
    """Yield a file or link, or all files and links below a folder, in one order on every machine."""
    if path.is_symlink() or not path.is_dir():
        if path.is_symlink() or path.exists():
            yield path
        return
    for each in sorted(path.iterdir()):
        if each.name not in SKIPPED and not each.name.endswith((".so", ".pyc")):
            yield from files_below(each)


def digest_of(tree: Path, paths: Iterable[str]) -> str:
    """Return the hash of files and folders of a tree: their names, whether they are programs, and their bytes."""
    digest = hashlib.sha256()
    for name in paths:
        for path in files_below(tree / name):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content, kind = os.readlink(path).encode(), "link"
            else:
                content, kind = path.read_bytes(), "program" if mode & 0o111 else "file"
            digest.update(f"{path.relative_to(tree)}\n{kind}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


class Stages:
    """The stages of a build: made, or found as they were made before.

    seconds: what each took in this run, by name, 0 for one that was kept.
    """

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self.cache, self._say = cache, say
        self.seconds: dict[str, float] = {}
        self._known: set[Path] = set()
        cache.mkdir(parents=True, exist_ok=True)

    def make(self, name: str, inputs: Mapping[str, str], build: Callable[[Path], None], why: str) -> Path:
        """Return the folder of a stage, which `build` fills when there is none of these inputs.

        why: what it does, for a person who waits.
        """
        path = self.cache / f"{name}-{key_of(inputs)}"
        if path in self._known:
            return path
        self._known.add(path)
        if path.is_dir():
            damaged = differing(path)
            if damaged is None:
                os.utime(path)
                self.seconds[name] = 0.0
                self._say(f"{name}: kept")
                return path
            self._say(f"{name}: damaged in the cache ({damaged}); it is made again")
            remove(path)
        self._say(f"{name}: {why}")
        started = time.monotonic()
        part = path.with_name(path.name + ".part")
        remove(part)
        part.mkdir()
        try:
            build(part)
        except BaseException:
            self._known.discard(path)
            raise
        (part / SUMS).write_text(sums_of(part))
        part.rename(path)
        self.seconds[name] = round(time.monotonic() - started, 1)
        self._say(f"{name}: made in {self.seconds[name]:.0f} s")
        self._forget(name, path)
        return path

    def _forget(self, name: str, newest: Path) -> None:
        """Remove what is left of this stage's earlier runs, but for the last."""
        made = [each for each in self.cache.glob(f"{name}-*") if is_of(each.name, name)]
        made.sort(key=lambda each: (each == newest, each.stat().st_mtime), reverse=True)
        for each in made[KEPT_MAX:]:
            remove(each)


def sums_of(folder: Path) -> str:
    """Return name and SHA-256 of every file of a folder; what is below folders of it is not looked at."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return "".join(lines)


def differing(folder: Path) -> str | None:
    """Return the name of a file that is not as it was when its stage was made, or None."""
    try:
        noted = (folder / SUMS).read_text()
    except (OSError, ValueError):
        return SUMS
    found = sums_of(folder)
    if noted == found:
        return None
    lines = set(noted.splitlines()) ^ set(found.splitlines())
    return min(line.rpartition("  ")[2] for line in lines)


def is_of(folder: str, stage: str) -> bool:
    """Tell whether a folder is one of a stage's: NAME-KEY, or NAME-KEY.part."""
    key = folder.removeprefix(f"{stage}-").removesuffix(".part")
    return len(key) == 16 and all(each in "0123456789abcdef" for each in key)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, if it is there; what is mounted in it stays."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)
