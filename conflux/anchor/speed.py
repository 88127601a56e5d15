"""Which AEAD is faster on this machine.

Without AES instructions (Raspberry Pi 4 and older) ChaCha20-Poly1305 is several times as fast as AES-256-GCM; with them
it is the other way round.  CPU flags say little about how well libcrypto uses them, so this measures.  It reads a
clock, which machines must not: the daemon calls it once and hands them the answer.
"""

from __future__ import annotations

import functools
import time

from conflux.anchor import codec, frame

_BODY_BYTES = 16384
_ROUND_COUNT = 6
_SEAL_COUNT = 3  # per round; 0.2 ms in all on a server, about 5 ms on a board without AES instructions
# Near a tie AES-256-GCM is chosen: it costs half as much on small packets (bench/parts/test_anchor.py), and the choice
# should be the same at every start.
_CHACHA_GAIN_MIN = 1.25


@functools.cache
def best_aead() -> int:
    """Return the AEAD, frame.AES_256_GCM or CHACHA20_POLY1305, that seals 16 KiB in less time here; measured once."""
    senders = {aead: codec.Sender(aead, bytes(frame.KEY_BYTES), bytes(4), 0) for aead in frame.AEAD_NAMES}
    bundle = [(frame.PADDING, bytes(_BODY_BYTES))]
    seconds = dict.fromkeys(senders, float("inf"))
    # The two alternate, and the best round counts: a disturbance of one round changes neither figure.
    for _ in range(_ROUND_COUNT):
        for aead, sender in senders.items():
            began = time.perf_counter()
            for _ in range(_SEAL_COUNT):
                sender.seal(0, 0, bundle)
            seconds[aead] = min(seconds[aead], time.perf_counter() - began)
    return prefer(aes_s=seconds[frame.AES_256_GCM], chacha_s=seconds[frame.CHACHA20_POLY1305])


def prefer(*, aes_s: float, chacha_s: float) -> int:
    """Return the AEAD to use, given the seconds that each takes for the same work."""
    return frame.CHACHA20_POLY1305 if aes_s > chacha_s * _CHACHA_GAIN_MIN else frame.AES_256_GCM
