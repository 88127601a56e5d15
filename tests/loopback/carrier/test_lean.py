"""Which modules the carrier loads; each case runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_carrier_loads_nothing_of_aiortc() -> None:
    code = "import sys, conflux.carrier.rtc.carrier; print([m for m in sys.modules if 'aio' in m and 'ice' in m])"
    assert run(code) == "[]"


def test_preparing_loads_neither_pyav_nor_libsrtp_nor_the_dns_library() -> None:
    code = """
import sys
from conflux.carrier.rtc.carrier import RtcCarrier
RtcCarrier.prepare()
assert "aiortc.rtcsctptransport" in sys.modules
print(sorted({name.partition(".")[0] for name in sys.modules} & {"av", "dns", "pylibsrtp", "aiortc.rtcpeerconnection"}))
"""
    assert run(code) == "[]"


LINKS = (
    "test_rtc.py::test_link_opens_and_carries_control_messages_both_ways",
    "test_rtc.py::test_tether_opens_with_every_channel_and_carries_frames_both_ways",
    "test_native.py::test_link_opens_and_carries_control_messages_of_every_size_in_order",
    "test_native.py::test_frames_of_the_engine_reach_a_link_over_aiortc_unchanged",
    "test_native.py::test_frames_of_a_link_over_aiortc_reach_the_engine",
)


def test_links_of_both_carriers_open_where_pyav_and_libsrtp_are_not_installed() -> None:
    """As in a package, which leaves them out."""
    tests = [str(Path(__file__).with_name(file)) for file in LINKS]
    code = f"""
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("av", "pylibsrtp"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", *{tests!r}])
assert "aiortc.rtcdtlstransport" in sys.modules
sys.exit(code)
"""
    assert " passed" in run(code)


def test_dtls_offers_the_profiles_of_srtp_that_libsrtp_has() -> None:
    """A browser or another aiortc sees no difference in the handshake."""
    code = """
from conflux.carrier import lean
{load}
from aiortc.rtcdtlstransport import SRTP_PROFILES
print([(each.libsrtp_profile, each.openssl_profile) for each in SRTP_PROFILES])
"""
    assert run(code.format(load="lean.load()")) == run(code.format(load="import aiortc"))


def test_packet_of_media_is_dropped_without_libsrtp() -> None:
    code = """
from conflux.carrier import lean
lean.load()
from aiortc.rtcdtlstransport import Policy, Session
print(bool(Session(Policy(key=b"k", ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=1))))
"""
    assert run(code) == "False"  # RTCDtlsTransport asks for it before it unseals media


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
