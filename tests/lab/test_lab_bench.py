"""`conflux bench` on a host measures every part, sends nothing, and leaves nothing behind however it ends.

alpha --- br0        a LAN that must stay silent
"""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest
from rig.topology import CONFLUX, Host, Lab, wait_for

PYTHON = CONFLUX.parent / "python"
SECONDS_MAX = 90  # quick: 18 s; the machine may be busy

FIGURES = {
    "aes_seal_64",
    "chacha20_open_60000",
    "frame_seal_bundle",
    "frame_open_small",
    "kem_decapsulate",
    "handshake_both",
    "start_daemon",
    "start_engine",
    "start_association",
    "memory_daemon_pss",
    "memory_engines_rss",
    "link_bulk",
    "link_bulk_cpu",
    "link_full_small",
    "link_small_bundle",
    "tunnel_tcp_super",
    "tunnel_udp_bundle",
    "tunnel_tcp",
    "tunnel_tcp_cpu",
    "tunnel_udp",
    "tunnel_ping_idle",
    "tunnel_ping_loaded",
}


@pytest.fixture
def alpha(lab: Lab) -> Host:
    """A host on a LAN."""
    return lab.host("alpha", lab.lan())


def bench_processes() -> list[str]:
    """Return the command lines of a bench's processes; the lab sees only its own processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may have ended
            words = path.read_bytes().replace(b"\0", b" ").decode()
            if "conflux.bench." in words or "conflux bench" in words:
                found.append(words)
    return found


def devices(host: Host) -> list[str]:
    """Return the names of the host's network devices."""
    return [device["ifname"] for device in json.loads(host.run("ip", "-json", "link").stdout)]


def test_a_bench_measures_everything_and_sends_nothing(alpha: Host) -> None:
    out = alpha.state / "report"
    before, links = alpha.wire(), devices(alpha)
    done = alpha.run(CONFLUX, "bench", "--quick", "--out", out, within_s=SECONDS_MAX)
    report = json.loads((out / "conflux-bench.json").read_text())
    assert report["missing"] == [], done.stdout
    assert set(report["figures"]) >= FIGURES
    assert all(figure["median"] > 0 for figure in report["figures"].values())
    assert report["settings"]["tcp_congestion_control"] == "cubic"
    assert "TCP, one flow" in done.stdout
    assert "tunnel: TCP, one flow" in done.stderr
    assert (out / "conflux-bench.html").read_text().startswith("<!doctype html>")
    assert alpha.wire().since(before).tx_packets <= 10, "the kernel's own neighbour discovery, at most"
    assert devices(alpha) == links
    assert bench_processes() == []
    compared = alpha.run(CONFLUX, "bench", "--compare", out / "conflux-bench.json", out / "conflux-bench.json").stdout
    assert compared.count("1.00 x") == len(report["figures"])


def test_a_tunnel_without_devices_is_skipped_by_name(alpha: Host) -> None:
    hidden = 'mount -t tmpfs none /dev/net && exec "$@"'
    done = alpha.run("unshare", "--mount", "sh", "-c", hidden, "sh", PYTHON, "-m", "conflux.bench.tunnel", "--quick")
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["say"] == "skipped"
    assert last["why"].startswith("/dev/net/tun is missing: load the kernel module")


@pytest.mark.parametrize(
    ("number", "code", "step", "count"),
    [
        (signal.SIGINT, 130, "link: super-packets", 2),  # itself and the engines
        (signal.SIGKILL, -signal.SIGKILL, "tunnel: ping, nothing", 5),  # and three that make traffic
    ],
)
def test_a_bench_that_is_stopped_leaves_nothing(
    alpha: Host, number: signal.Signals, code: int, step: str, count: int
) -> None:
    out = alpha.state / "report"
    bench = alpha.spawn("bench", CONFLUX, "bench", "--quick", "--out", out)
    wait_for(lambda: step in bench.output(), step, within_s=SECONDS_MAX, logs=(bench,))
    assert len(bench_processes()) == count
    bench.signal(number)
    assert bench.wait(10) == code
    wait_for(lambda: not bench_processes(), "no process left", within_s=5, logs=(bench,))
    assert "Traceback" not in bench.output()
    assert list(out.iterdir()) == []
