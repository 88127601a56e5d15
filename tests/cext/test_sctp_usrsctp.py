"""Our association and usrsctp, which Firefox and older Chromes carry data channels with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sctp_library import HERE, SANITIZERS, SOURCES, compile_c

MESSAGES = 28 + 1  # the sizes, ordered and not; one more after the resets


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path("/usr/include/usrsctp.h").exists():
        pytest.skip("usrsctp is not here; on Debian: apt-get install libusrsctp-dev")
    out = tmp_path_factory.mktemp("usrsctp") / "sctp_usrsctp"
    # usrsctp.h warns of its own unused parameters
    compile_c(
        out, [HERE / "sctp_usrsctp.c", *SOURCES], "-isystem/usr/include", *SANITIZERS, "-D_DEFAULT_SOURCE", "-lusrsctp"
    )
    return out


@pytest.mark.parametrize("begin", ["both", "theirs"])
@pytest.mark.parametrize("lose", [0, 25])
@pytest.mark.parametrize(("goodbye", "end"), [("ours", "asked"), ("theirs", "shutdown"), ("abort", "asked")])
def test_everything_both_ways(program: Path, begin: str, lose: int, goodbye: str, end: str) -> None:
    done = subprocess.run([program, begin, str(lose), goodbye], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert facts == {
        "opened": "1 1",
        "came": f"{MESSAGES} {MESSAGES}",
        "wrong": "0",
        "resets": "4 4 0",
        "end": f"{end} 1",
        "malformed": "0",
    }, done.stderr
