"""Runs a Python program so that SIGUSR2 makes it write everything it holds to a file: what could be got out of it.

usage: dumpable.py FILE PROGRAM [ARGUMENT...]      FILE.1, FILE.2, ... with every signal; whole once they have the name

A child forked at that moment does the writing, so the program goes on, and what is written is one moment.  Written is
every bytes, str and int, and every object that leads to one: whatever the garbage collector can visit, from all it
tracks and from the stacks.  Left out is code.  knowledge.py reads it.
"""

from __future__ import annotations

import gc
import os
import pickle
import runpy
import signal
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

PLAIN_INT_BITS = 24  # smaller ones are counters and sizes; an IPv4 address of ours has more


def held(frame: FrameType | None) -> tuple[list[str], list[tuple[int, object, tuple[int, ...]]]]:
    """Return (type names, objects): per object its type's index, its value if it is data, and what it refers to."""
    gc.disable()
    gc.unfreeze()  # the daemon hides from the collector what lives as long as it does
    index_of: dict[int, int] = {}
    found: list[object] = []
    types: dict[str, int] = {}
    objects: list[tuple[int, object, tuple[int, ...]]] = []

    def add(item: object) -> int:
        index = index_of.get(id(item))
        if index is None:
            index = index_of[id(item)] = len(found)
            found.append(item)  # kept, so that no id is used twice
        return index

    ours = {id(index_of), id(found), id(types), id(objects)}
    for item in [*_frames(frame), *gc.get_objects()]:
        if id(item) not in ours:
            add(item)
    done = 0
    while done < len(found):
        item = found[done]
        done += 1
        name = f"{type(item).__module__}.{type(item).__qualname__}"
        kind = types.setdefault(name, len(types))
        if isinstance(item, bytes | bytearray | str | int) and not isinstance(item, bool):
            value = None if isinstance(item, int) and item.bit_length() <= PLAIN_INT_BITS else _plain(item)
            objects.append((kind, value, ()))
            continue
        code = isinstance(item, CodeType)
        refers = () if code else tuple(add(each) for each in gc.get_referents(item) if id(each) not in ours)
        objects.append((kind, None, refers))
    return list(types), objects


def _frames(interrupted: FrameType | None) -> list[FrameType]:
    """Return what every thread is in the middle of, but for this very writing."""
    tops = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
    frames: list[FrameType] = []
    for top in [interrupted, *tops]:
        while top is not None:
            frames.append(top)
            top = top.f_back
    return frames


def _plain(item: bytes | bytearray | str | int) -> object:
    """Return the value without its class: whoever reads it need not know our types."""
    if isinstance(item, str):
        return str.__str__(item)
    return int(item) if isinstance(item, int) else bytes(item)


def dump(path: Path, frame: FrameType | None) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        pickle.dump(held(frame), file, protocol=5)
    part.replace(path)


def main() -> None:
    base, count = Path(sys.argv[1]), 0
    sys.argv = sys.argv[2:]

    def on_signal(_number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if os.fork() == 0:
            try:
                dump(Path(f"{base}.{count}"), frame)
            finally:
                os._exit(0)  # not one step further in the program's own doings

    signal.signal(signal.SIGUSR2, on_signal)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
