"""Our association against usrsctp, which carries the data channels of Firefox and older Chromes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from kit.compile import UNDEFINED, build
from kit.sctp import SOURCES
from kit.tree import CEXT, DRIVERS

MESSAGES = 28 + 1  # the sizes, ordered and not; one more after the resets


@pytest.fixture(scope="module")
def program() -> Path:
    if not Path("/usr/include/usrsctp.h").exists():
        pytest.skip("usrsctp is not here; on Debian: apt-get install libusrsctp-dev")
    sources = (DRIVERS / "sctp/sctp_usrsctp.c", *(CEXT / name for name in SOURCES))
    quiet = "-isystem/usr/include"  # usrsctp.h has unused parameters
    apart = "-fvisibility=hidden"  # else usrsctp would call our sctp_close() and sctp_connect() for its own
    options = (quiet, apart, *UNDEFINED, "-D_DEFAULT_SOURCE")
    return build(*sources, options=options, libraries=("usrsctp", "crypto"))


@pytest.mark.parametrize("begin", ["both", "theirs"])
@pytest.mark.parametrize("lose", [0, 25])
@pytest.mark.parametrize(("goodbye", "end"), [("ours", "asked"), ("theirs", "shutdown"), ("abort", "asked")])
def test_messages_resets_and_the_end_work_with_usrsctp(
    program: Path, begin: str, lose: int, goodbye: str, end: str
) -> None:
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
