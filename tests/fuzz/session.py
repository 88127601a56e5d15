"""One target under atheris: session.py TARGET [LIBFUZZER-OPTION...] [CORPUS-DIRECTORY...]"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["conflux"]):
    from fuzz.targets import TARGETS

name, *arguments = sys.argv[1:]
target = TARGETS[name]


def run(data: bytes) -> None:
    """libFuzzer's reading of a return value is not ours."""
    target(data)


# Merging, libFuzzer starts itself again, by a shell, as what argv[0] says.
again = shlex.join((sys.executable, __file__, name))
atheris.Setup([again, *arguments], run)
atheris.Fuzz()
