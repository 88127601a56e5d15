"""A thread that gets the processor late: `PYTHONPATH=tests .venv/bin/python -m kit.sctp_late`, a table of rate.md."""

from __future__ import annotations

from kit.sctp import MS, SECOND, Load, WorldConfig, load, run_world

SECONDS = 4
PATHS = ((1000, 0.05, 0), (50, 0.2, 0), (50, 25.0, 1))  # Mbit/s, ms one way, % lost each way
TURNS_MS = (0, 1, 3, 10)


def late(mbit: int, delay_ms: float, loss_percent: int, turn_ms: int, *, both: bool) -> WorldConfig:
    """Return bulk over a path: the sender, or both ends, get a turn only every turn_ms.  The buffer holds 30 ms."""
    size = 65536 if mbit > 100 else 6000
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
        wire.queue_bytes = mbit * 125 * 30
        wire.loss_ppm = loss_percent * 10_000
    config.turn_ns[:] = turn_ms * MS, turn_ms * MS * both
    config.load[0] = Load(messages=mbit * 500_000 // size + 1000, size_min=size, size_max=size, streams=4)
    return config


def main() -> None:
    print(f"| path | {' | '.join(f'every {turn} ms' if turn else 'at once' for turn in TURNS_MS)} |")
    print("|---" * (1 + len(TURNS_MS)) + "|")
    library = load()
    for mbit, delay_ms, loss in PATHS:
        cells = []
        for turn_ms in TURNS_MS:
            ends = [
                run_world(library, late(mbit, delay_ms, loss, turn_ms, both=both)).side[1] for both in (False, True)
            ]
            cells.append(" / ".join(f"{end.delivered_bytes * 8 / SECONDS / 1e6:.0f}" for end in ends))
        name = f"{mbit} Mbit/s, {2 * delay_ms:g} ms" + (f", {loss} % lost" if loss else "")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
