"""What a target starts from: the seeds, and the inputs that were worth keeping."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fuzz.seeds import seeds

CORPUS = Path(__file__).parent / "corpus"


def kept(target: str) -> list[Path]:
    """Return the files that are kept for a target."""
    return sorted((CORPUS / target).glob("*"))


def write_seeds(target: str, directory: Path) -> None:
    """Fill a directory with the target's seeds and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for seed in seeds()[target]:
        (directory / name_of(seed)).write_bytes(seed)


def name_of(data: bytes) -> str:
    """Return the name libFuzzer would give the file."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
