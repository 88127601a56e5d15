"""The frame codec with its AEAD: bundles of 16 KiB, and bundles of one small packet, both ways, compiled and twin.

extra_info carries GB/s of bundle (16 KiB) or ns per packet (84 bytes, a ping) of the best round.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conflux.anchor import _codec, _codec_py, frame

KEY = bytes(range(32))
PREFIX = b"\xa0\xa1\xa2\xa3"
FRAME_COUNT = 256  # per round, so that the cost of the clock and of making a receiver vanishes
ROUND_COUNT = 40

BUNDLE_16K = [(frame.PACKET, bytes(1362))] * 12  # 12 packets at an MTU of 1362: 16,380 bytes with their entry headers
BUNDLE_PING = [(frame.PACKET, bytes(84))]

every_codec = pytest.mark.parametrize("codec", [_codec, _codec_py], ids=["compiled", "twin"])
every_aead = pytest.mark.parametrize("aead", list(frame.AEAD_NAMES), ids=list(frame.AEAD_NAMES.values()))
every_bundle = pytest.mark.parametrize("bundle", [BUNDLE_16K, BUNDLE_PING], ids=["16 KiB", "ping"])


def measure(benchmark: BenchmarkFixture, run: Callable[..., Any], setup: Callable[[], Any], bundle: list[Any]) -> None:
    """Time run, which handles FRAME_COUNT frames, and note what one frame or byte costs."""
    benchmark.pedantic(run, setup=setup, rounds=ROUND_COUNT, warmup_rounds=2)
    if benchmark.stats is None:  # --benchmark-disable
        return
    per_frame_s = benchmark.stats.stats.min / FRAME_COUNT
    size = sum(frame.ENTRY_HEADER_BYTES + len(body) for _, body in bundle)
    if len(bundle) > 1:
        benchmark.extra_info["gigabytes_per_s"] = round(size / per_frame_s / 1e9, 3)
    else:
        benchmark.extra_info["ns_per_packet"] = round(per_frame_s * 1e9)


@every_bundle
@every_aead
@every_codec
def test_seal(benchmark: BenchmarkFixture, codec: ModuleType, aead: int, bundle: list[tuple[int, bytes]]) -> None:
    def run(sender: Any) -> None:
        seal = sender.seal
        for _ in range(FRAME_COUNT):
            seal(1, 0, bundle)

    measure(benchmark, run, lambda: ((codec.Sender(aead, KEY, PREFIX, 0),), {}), bundle)


@every_bundle
@every_aead
@every_codec
def test_unseal(benchmark: BenchmarkFixture, codec: ModuleType, aead: int, bundle: list[tuple[int, bytes]]) -> None:
    sender = _codec.Sender(aead, KEY, PREFIX, 0)
    frames = [sender.seal(1, 0, bundle) for _ in range(FRAME_COUNT)]

    def run(receiver: Any) -> None:
        unseal = receiver.unseal
        for data in frames:
            unseal(data)

    measure(benchmark, run, lambda: ((codec.Receiver(aead, KEY, PREFIX, 0),), {}), bundle)


@every_codec
def test_replay_window(benchmark: BenchmarkFixture, codec: ModuleType) -> None:
    """Take 4096 counters in pairs that arrive in the wrong order."""
    counters = [base + offset for base in range(0, 4096, 2) for offset in (1, 0)]

    def run(window: Any) -> None:
        for counter in counters:
            window.check(counter)
            window.update(counter)

    benchmark.pedantic(run, setup=lambda: ((codec.ReplayWindow(),), {}), rounds=ROUND_COUNT, warmup_rounds=2)


@every_codec
def test_relabel(benchmark: BenchmarkFixture, codec: ModuleType) -> None:
    """Relay a frame of 16 KiB: read its header, then copy it under the next label."""
    data = codec.Sender(frame.AES_256_GCM, KEY, PREFIX, 0).seal(1, 0, BUNDLE_16K)

    def run() -> None:
        for _ in range(FRAME_COUNT):
            codec.peek(data)
            codec.relabel(data, 2, False)

    benchmark.pedantic(run, rounds=ROUND_COUNT, warmup_rounds=2)
