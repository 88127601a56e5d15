"""Which modules the carrier loads; each case runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_carrier_loads_nothing_of_aiortc() -> None:
    code = "import sys, conflux.carrier.rtc.carrier; print([m for m in sys.modules if 'aio' in m and 'ice' in m])"
    assert run(code) == "[]"


def test_preparing_loads_neither_pyav_nor_the_dns_library() -> None:
    code = """
import sys
from conflux.carrier.rtc.carrier import RtcCarrier
RtcCarrier.prepare()
assert "aiortc.rtcsctptransport" in sys.modules
print(sorted({name.partition(".")[0] for name in sys.modules} & {"av", "dns", "aiortc.rtcpeerconnection"}))
"""
    assert run(code) == "[]"


def test_aiortc_itself_can_still_be_imported_afterwards() -> None:
    code = """
from conflux.carrier.rtc.carrier import RtcCarrier
RtcCarrier.prepare()
from conflux.carrier.rtc.association import RTCSctpTransport
import aiortc, aioice, aioice.mdns
assert aiortc.RTCSctpTransport is RTCSctpTransport
assert aiortc.RTCPeerConnection
print(aioice.mdns.MDnsProtocol.__module__)
"""
    assert run(code) == "aioice.mdns"


def test_aiortc_imported_first_is_used_as_it_is() -> None:
    code = """
import aiortc
from conflux.carrier.rtc.carrier import RtcCarrier
RtcCarrier.prepare()
from conflux.carrier.rtc.association import RTCSctpTransport
print(aiortc.RTCSctpTransport is RTCSctpTransport)
"""
    assert run(code) == "True"


def test_other_layout_of_aiortc_is_refused_by_name_and_leaves_nothing_half_loaded() -> None:
    code = """
import sys
from conflux.carrier import lean
lean._SUBMODULES = ("rtcconfiguration", "no_longer_there")
try:
    lean.load()
except ImportError as error:
    print(error)
print([name for name in sys.modules if name.startswith(("aiortc", "aioice")) or name == "av"])
"""
    first, second = run(code).splitlines()
    assert "no_longer_there" in first
    assert "1.16" in first
    assert second == "[]"
