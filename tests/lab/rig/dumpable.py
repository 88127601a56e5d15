"""Runs a Python program so that SIGUSR2 makes it write everything it holds to a file.

usage: dumpable.py FILE PROGRAM [ARGUMENT...]      FILE.1, FILE.2, ...: one per signal; a file with its name is whole

A child forked at that moment writes, so the program goes on and the dump shows one moment.  It has every bytes, str and
int, and every object that leads to one: all that the garbage collector can visit from the objects it tracks and from
the stacks.  Code is left out.  knowledge.py reads the dump.
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

from conflux.host import sandbox

PLAIN_INT_BITS = 24  # smaller ones are counters and sizes; an IPv4 address of ours has more


def held(frame: FrameType | None) -> tuple[list[str], list[tuple[int, object, tuple[int, ...]]]]:
    """Return (type names, objects): per object its type's index, its value if it is data, and what it refers to."""
    gc.disable()
    gc.unfreeze()  # the daemon has frozen the objects that live as long as it does
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
    """Return the frames of every thread, except those of the dump itself."""
    tops = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
    frames: list[FrameType] = []
    for top in [interrupted, *tops]:
        while top is not None:
            frames.append(top)
            top = top.f_back
    return frames


def _plain(item: bytes | bytearray | str | int) -> object:
    """Return the value without its class, so that a reader does not need our types."""
    if isinstance(item, str):
        return str.__str__(item)
    return int(item) if isinstance(item, int) else bytes(item)


def dump(path: Path, frame: FrameType | None) -> None:
    """Write everything held to a file, which appears when it is whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        pickle.dump(held(frame), file, protocol=5)
    part.replace(path)


def main() -> None:
    """Run the program of the command line, and dump at every SIGUSR2."""
    base, count = Path(sys.argv[1]), 0
    sys.argv = sys.argv[2:]

    def on_signal(_number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if os.fork() == 0:
            try:
                dump(Path(f"{base}.{count}"), frame)
            finally:
                os._exit(0)  # the child must not go on with the program

    signal.signal(signal.SIGUSR2, on_signal)
    sandbox.enter = lambda state, socket, configuration=None: ()  # it would keep the dump from being written
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
