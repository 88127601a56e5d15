"""Run a target on files, without atheris: replay.py [--prefixes] TARGET FILE-OR-DIRECTORY...

--prefixes: on every beginning of every file too.  Ends with the first finding's traceback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import codec  # the path comes first

codec.load()

from fuzz.targets import TARGETS  # noqa: E402  # the codec comes first

parser = argparse.ArgumentParser()
parser.add_argument("--prefixes", action="store_true")
parser.add_argument("target", choices=TARGETS)
parser.add_argument("paths", nargs="+", type=Path)
asked = parser.parse_args()
count = 0
for path in asked.paths:
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        data = file.read_bytes()
        for size in range(len(data)) if asked.prefixes else ():
            TARGETS[asked.target](data[:size])
        print(f"{file}\n    {'accepted' if TARGETS[asked.target](data) else 'refused'}")
