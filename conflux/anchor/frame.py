"""The Anchor data frame: one data-channel message, one sealed bundle of IP packets.

     0        1        2        3        4                                   8
     +--------+--------+--------+--------+-----------------------------------+
     | version| flags  | epoch  | rsv 0  |  label (rewritten at each hop)    |
     +--------+--------+--------+--------+-----------------------------------+
     |                        counter, 64 bits                               |
     +-----------------------------------------------------------------------+
     |  sealed bundle:  { kind u8 | length u16 | body } …        | tag 16 B  |
     +-----------------------------------------------------------------------+

Network byte order.  Nonce: the stream's 4-byte prefix, then the counter.  Additional data: the header with the label
and CE zeroed, because relays rewrite these two and nothing else.  This file has numbers only; cext/anchor/frame.h
repeats them for the compiled codec, and tests compare the two.  Source: docs/reference/protocol.md, "Data frame".
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
HEADER_BYTES: Final = 16
TAG_BYTES: Final = 16
FRAME_BYTES_MAX: Final = 65536  # every hop's data channels carry messages of this size
BUNDLE_BYTES_MAX: Final = FRAME_BYTES_MAX - HEADER_BYTES - TAG_BYTES
ENTRY_HEADER_BYTES: Final = 3

# ── flags ────────────────────────────────────────────────────────────────────────────────────────────────────────────

CE: Final = 1  # congestion experienced; set by relays, so not authenticated
FEEDBACK: Final = 2  # the frame travels against its stream's direction, under the feedback key

# ── entry kinds ──────────────────────────────────────────────────────────────────────────────────────────────────────

PACKET: Final = 1  # one plain IP packet
OFFLOAD: Final = 2  # 10-byte virtio-net header, little-endian, then the packet; only to receivers that offered it
REKEY: Final = 3
PADDING: Final = 4
CONFIRM: Final = 5  # body of a route confirmation
END: Final = 6  # the stream's last frame
REPORT: Final = 7  # body of a feedback report

KINDS: Final = frozenset({PACKET, OFFLOAD, REKEY, PADDING, CONFIRM, END, REPORT})
OFFLOAD_HEADER_BYTES: Final = 10
# The frame codec refuses an empty packet, so that code behind it may read a packet's first byte.
BODY_BYTES_MIN: Final = {PACKET: 1, OFFLOAD: OFFLOAD_HEADER_BYTES + 1}

# ── keys and counters ────────────────────────────────────────────────────────────────────────────────────────────────

AES_256_GCM: Final = 1
CHACHA20_POLY1305: Final = 2
AEAD_NAMES: Final = {AES_256_GCM: "AES-256-GCM", CHACHA20_POLY1305: "ChaCha20-Poly1305"}
KEY_BYTES: Final = 32
NONCE_PREFIX_BYTES: Final = 4

COUNTER_END: Final = 2**64 - 1  # never sealed and never accepted: so highest + 1 fits 64 bits
# Frames can overtake each other by at most as many as are in flight: 8192 frames of 16 KiB are 1 Gbit.
REPLAY_WINDOW_COUNT: Final = 8192
