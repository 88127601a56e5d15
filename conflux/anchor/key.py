"""A key of a stream, as the stream agrees on it and as the datapath uses it, and how long it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EPOCH_S_MAX: Final = 120  # of use: what a stolen key opens
EPOCH_BYTES_LOG2_MAX: Final = 40  # 1 TiB of bundles: far below what AES-GCM may seal under one key


@dataclass(frozen=True, slots=True)
class EpochKey:
    """One key of a stream in one direction (data or feedback), for one epoch."""

    epoch: int  # 0 to 255, counts up modulo 256
    aead: int  # conflux.anchor.frame.AES_256_GCM or CHACHA20_POLY1305
    key: bytes  # 32 bytes
    nonce_prefix: bytes  # 4 bytes; the counter fills the other 8

    def __repr__(self) -> str:
        return f"EpochKey(epoch={self.epoch}, aead={self.aead})"  # never the key itself
