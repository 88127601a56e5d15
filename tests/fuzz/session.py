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
    """Run the target, and return nothing: libFuzzer gives return values another meaning."""
    target(data)


# When it merges, libFuzzer starts itself again by a shell, with argv[0] as the command.
again = shlex.join((sys.executable, __file__, name))
atheris.Setup([again, *arguments], run)
atheris.Fuzz()
