"""What travels on a control channel: an envelope anybody may forward, around a signed message.

    Envelope   to | id | hop limit | key id | payload          (nothing here is authenticated, nothing here is trusted)
                                                 │
                 key id given:  HPKE to the receiver's hop key with that id     key id None: plain
                                                 │
    Inner      src | boot | seq | kind | re | body | Ed25519 signature over to and all of these

Sender and signature are inside the seal: who forwards an envelope learns where it goes, not whence.
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux import wire
from conflux.control.channel import ENVELOPE_BYTES_MAX, Kind
from conflux.ids import BOOT_ID_BYTES, NODE_ID_BYTES, BootId, NodeId
from conflux.wire import Record, octets, optional, uint

ENVELOPE_ID_BYTES = 16
KEY_ID_BYTES = 8
SIGNATURE_BYTES = 64
BODY_BYTES_MAX = 26 * 1024  # a question with the largest card (24 kB) fits
PAYLOAD_BYTES_MAX = 28 * 1024
HOP_LIMIT_MAX = 8  # LANs joined through middle nodes are few hops wide; chosen

PLAIN_KINDS = frozenset({Kind.WHO, Kind.CARD, Kind.PRESENCE})
"""What must be readable without a key: these are how keys become known.  Every other kind must be sealed."""


@dataclass(frozen=True, slots=True)
class Envelope(Record):
    """One transmission.  A retry is a new envelope (new id) with the same payload, or a forwarder would remove it."""

    BYTES_MAX = ENVELOPE_BYTES_MAX
    SHAPES = (
        optional(octets(NODE_ID_BYTES)),
        octets(ENVELOPE_ID_BYTES),
        uint(HOP_LIMIT_MAX),
        optional(octets(KEY_ID_BYTES)),
        octets(1, PAYLOAD_BYTES_MAX),
    )

    to: NodeId | None  # None: everybody in the area
    id: bytes
    hop_limit: int
    key_id: bytes | None  # None: the payload is a plain Inner
    payload: bytes


@dataclass(frozen=True, slots=True)
class Inner(Record):
    """One message, as its sender signed it."""

    BYTES_MAX = PAYLOAD_BYTES_MAX
    SHAPES = (
        octets(NODE_ID_BYTES),
        octets(BOOT_ID_BYTES),
        uint(),
        uint(255),
        uint(),
        octets(0, BODY_BYTES_MAX),
        octets(SIGNATURE_BYTES),
    )

    src: NodeId
    boot: BootId
    seq: int
    kind: int
    re: int  # seq of the message this one answers; 0: it answers none
    body: bytes
    signature: bytes

    def signed_message(self, to: NodeId | None) -> bytes:
        """Return the bytes under the signature.

        to is among them, or a receiver could seal the message anew to a third node, which would take it for its own.
        """
        return signed_message(to, self.src, self.boot, self.seq, self.kind, self.re, self.body)


def signed_message(to: NodeId | None, src: NodeId, boot: BootId, seq: int, kind: int, re: int, body: bytes) -> bytes:
    """Return what the sender of an Inner signs."""
    return wire.encode([to, src, boot, seq, kind, re, body])
