"""The onion that sets a route up: four slots of one size, one used per hop, so that no hop can tell its position.

    SETUP carries   slot 1 | slot 2 | slot 3 | slot 4          each: key id 8 | HPKE (RFC 9180) ciphertext

    A hop opens slot 1 and finds its task, a route key, and the hash of slots 2 to 4 as they came.  It passes on

        ( slot 2 | slot 3 | slot 4 | zeros )  XOR  ChaCha20 keystream of the route key

    which is again four slots: the first one opens with the next hop's key, the last one is filler.

A route of one hop needs none of that: nobody is on the way, and the link leads to the hop that the slot is for.  If
the hop's card says so, it gets the slot's content as it is; else, if the card says that, one slot and nothing behind.
Source: docs/reference/protocol.md, "Onion".

The sender builds it backwards, as Sphinx does (Danezis and Goldberg 2009).  It knows the fillers, because they are
keystream, so it can give every hop the hash of what that hop will see.  If a hop changes anything, the next hop
refuses.  This file knows nothing of links and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from conflux.crypto import kdf, seal
from conflux.crypto.sign import context
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId, RealmId, StreamId

SLOT_COUNT = 4
KEY_ID_BYTES = 8
ROUTE_KEY_BYTES = 32
_FORWARD, _DELIVER = 0, 1
_PLAIN_BYTES = 1 + 16 + 4 + ROUTE_KEY_BYTES + kdf.SHA256_BYTES
SLOT_BYTES = KEY_ID_BYTES + seal.OVERHEAD_BYTES + _PLAIN_BYTES
ONION_BYTES = SLOT_COUNT * SLOT_BYTES
CLEAR_BYTES = 1 + 16 + 4 + ROUTE_KEY_BYTES  # of a slot that is not sealed: nothing follows it, so it has no hash
LIFETIME_S_MAX = 86400


class HopKey(NamedTuple):
    """A hop as the sender sees it: its node id, and the key on its card.

    one_slot, clear: the card says that the hop takes an onion of one slot, or a slot that is not sealed, where the
    stream ends.
    """

    node: NodeId
    key_id: bytes
    public: bytes
    one_slot: bool = False
    clear: bool = False


@dataclass(frozen=True, slots=True)
class Peeled:
    """The content of a hop's slot.

    +------+----------------------+------------+--------------+----------------------+
    | what | next node or stream  | lifetime s | route key    | hash of what follows |
    | 1    | 16                   | 4          | 32           | 32                   |
    +------+----------------------+------------+--------------+----------------------+
    """

    next: NodeId | None  # the node to pass the rest on to; None: the stream ends here
    stream: StreamId | None  # the stream that ends here, or None
    lifetime_s: int
    route_key: bytes = field(repr=False)
    rest: bytes = field(repr=False)  # the onion for the next hop; empty where the stream ends


def wrap(
    hops: Sequence[HopKey],
    stream: StreamId,
    *,
    lifetime_s: int,
    realm: RealmId,
    entropy: Callable[[int], bytes],
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the onion for the first hop, and every hop's route key, the last hop's last.

    hops: one to four, the stream's receiver last.  Raises RemoteProtocolError if a card's key is no key.
    """
    if not 1 <= len(hops) <= SLOT_COUNT:
        raise LocalProtocolError(f"a route of {len(hops)} hops")
    if len(hops) == 1 and hops[0].clear:
        key = entropy(ROUTE_KEY_BYTES)
        return bytes([_DELIVER]) + stream + lifetime_s.to_bytes(4) + key, (key,)
    slot_count = 1 if len(hops) == 1 and hops[0].one_slot else SLOT_COUNT
    keys = tuple(entropy(ROUTE_KEY_BYTES) for _ in hops)
    streams = [keystream(key) for key in keys]

    # The last hop will see this at the end of its onion: every hop before it put a slot of zeros there and XORed
    # keystream over it.  The bytes between that hop's slot and the filler are free, and random.
    filler = b""
    for number in range(len(hops) - 1):
        filler = xor(filler + bytes(SLOT_BYTES), streams[number][-SLOT_BYTES * (number + 1) :])
    free = entropy((slot_count - 1) * SLOT_BYTES - len(filler))
    tail = free + filler

    onion = b""
    for number in reversed(range(len(hops))):
        hop, key = hops[number], keys[number]
        if number < len(hops) - 1:
            tail = xor(onion, streams[number])[:-SLOT_BYTES]
            action, target = _FORWARD, bytes(hops[number + 1].node)
        else:
            action, target = _DELIVER, bytes(stream)
        plain = bytes([action]) + target + lifetime_s.to_bytes(4) + key + kdf.sha256(tail)
        onion = hop.key_id + seal.seal(hop.public, plain, slot_info(realm, hop.key_id)) + tail
    return onion, keys


def peel_untrusted(onion: bytes, unseal: Callable[[bytes, bytes, bytes], bytes], *, realm: RealmId) -> Peeled:
    """Open this node's slot.  unseal(key id, sealed, info): the plaintext, or RemoteProtocolError, as Routes has it.

    Raises RemoteProtocolError; "auth" also when the bytes after the slot are not those the sender put there.
    """
    if len(onion) == CLEAR_BYTES:
        return _peel_clear_untrusted(onion)
    if len(onion) not in (SLOT_BYTES, ONION_BYTES):
        raise RemoteProtocolError("malformed", f"onion of {len(onion)} bytes")
    key_id, sealed, tail = onion[:KEY_ID_BYTES], onion[KEY_ID_BYTES:SLOT_BYTES], onion[SLOT_BYTES:]
    plain = unseal(key_id, sealed, slot_info(realm, key_id))
    if len(plain) != _PLAIN_BYTES or plain[0] not in (_FORWARD, _DELIVER):
        raise RemoteProtocolError("malformed", "slot")
    target, lifetime_s = plain[1:17], int.from_bytes(plain[17:21])
    route_key, tail_hash = plain[21 : 21 + ROUTE_KEY_BYTES], plain[21 + ROUTE_KEY_BYTES :]
    if not kdf.equal(tail_hash, kdf.sha256(tail)):
        raise RemoteProtocolError("auth", "the onion was altered behind the slot")
    _check_lifetime(lifetime_s)
    if plain[0] == _DELIVER:
        return Peeled(None, StreamId(target), lifetime_s, route_key, b"")
    if not tail:
        raise RemoteProtocolError("malformed", "one slot, and it passes on")
    rest = xor(tail + bytes(SLOT_BYTES), keystream(route_key))
    return Peeled(NodeId(target), None, lifetime_s, route_key, rest)


def _peel_clear_untrusted(slot: bytes) -> Peeled:
    if slot[0] != _DELIVER:
        raise RemoteProtocolError("malformed", "a slot that is not sealed, and it passes on")
    lifetime_s = int.from_bytes(slot[17:21])
    _check_lifetime(lifetime_s)
    return Peeled(None, StreamId(slot[1:17]), lifetime_s, slot[21:], b"")


def _check_lifetime(lifetime_s: int) -> None:
    if lifetime_s > LIFETIME_S_MAX:
        raise RemoteProtocolError("malformed", f"lifetime of {lifetime_s} s")


def tag(route_key: bytes) -> bytes:
    """Return the 16 bytes of a confirmation: only the sender and the hop that opened the slot can know them."""
    return kdf.hkdf(route_key, salt=b"", info=b"conflux/1/route-tag", size=16)


def refusal_key(route_key: bytes) -> bytes:
    """Return the 32-byte key under which the hop with this route key refuses."""
    return kdf.hkdf(route_key, salt=b"", info=b"conflux/1/route-refusal", size=32)


def slot_info(realm: RealmId, key_id: bytes) -> bytes:
    """Return the context that the seal of a slot is bound to."""
    return context("route-slot", realm) + key_id


def keystream(route_key: bytes) -> bytes:
    """Return ChaCha20 (RFC 8439) keystream for one whole onion, under a key derived for this alone."""
    key = kdf.hkdf(route_key, salt=b"", info=b"conflux/1/route-mask", size=32)
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return encryptor.update(bytes(ONION_BYTES))


def xor(a: bytes, b: bytes) -> bytes:
    """Return a XOR b, of equal length."""
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(len(a))
