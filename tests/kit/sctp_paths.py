"""Bulk over simulated paths: `PYTHONPATH=tests python -m kit.sctp_paths` makes a table of docs/explanation/rate.md."""

from __future__ import annotations

from kit.sctp import MS, SECOND, Load, WorldConfig, load, run_world

SECONDS = 15
MESSAGE_BYTES = 6000
# Mbit/s, ms one way, % lost each way, bytes of queue.
PATHS = (
    *((50, 25.0, lost, queue) for lost in (1, 5) for queue in (78_125, 312_500, 1_250_000)),
    (50, 0.15, 0, 312_500),
    (1000, 0.05, 0, 1_000_000),
    (2000, 0.05, 0, 1_000_000),
    (3000, 0.15, 0, 1_000_000),
)


def bulk(mbit: int, delay_ms: float, loss_percent: int, queue_bytes: int) -> WorldConfig:
    """Return two associations and a path between them; one sends more messages than the path carries."""
    config = WorldConfig(
        seed=1,
        until_ns=SECONDS * SECOND,
        packet_bytes_max=1400,
        window_bytes=8 << 20,
        send_bytes_max=32 << 20,
        connect=3,
    )
    for wire in config.wire:
        wire.delay_ns = int(delay_ms * MS)
        wire.rate_bytes_s = mbit * 125_000
        wire.queue_bytes = queue_bytes
        wire.loss_ppm = loss_percent * 10_000
    messages = mbit * 125_000 * SECONDS // MESSAGE_BYTES + 1000
    config.load[0] = Load(messages=messages, size_min=MESSAGE_BYTES, size_max=MESSAGE_BYTES, streams=4, unordered=1)
    return config


def main() -> None:
    """Print the table."""
    print("| path | queue, kB | Mbit/s | latency of a message, average |")
    print("|---|---|---|---|")
    library = load()
    for mbit, delay_ms, loss, queue in PATHS:
        end = run_world(library, bulk(mbit, delay_ms, loss, queue)).side[1]
        rate = end.delivered_bytes * 8 / SECONDS / 1e6
        latency = end.latency_sum_ns / end.delivered / MS
        name = f"{mbit} Mbit/s, {2 * delay_ms:g} ms" + (f", {loss} % lost both ways" if loss else "")
        print(f"| {name} | {queue // 1000} | {rate:.1f} | {latency:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
