"""A 32-bit system is refused by name: when the extension is built, and when a copy of it starts."""

import subprocess
import sys

from kit.tree import TREE

AS_ON_32_BITS = "import sys; sys.maxsize = 2**31 - 1\n"


def said_on_32_bits(source: str) -> str:
    """Run Python that takes itself for a 32-bit one; it must fail, and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_32_BITS + source], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_build_is_refused_and_says_what_to_install() -> None:
    said = said_on_32_bits("import runpy; runpy.run_path('setup.py')")
    assert "32-bit" in said
    assert "64-bit Raspberry Pi OS" in said


def test_every_command_is_refused() -> None:
    said = said_on_32_bits("from conflux.cli.parser import main; sys.exit(main(['status']))")
    assert said == "conflux: this Python is a 32-bit one, and Conflux needs a 64-bit system\n"
