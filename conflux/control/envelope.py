"""What travels on a control channel: an envelope that any node may forward, around a signed message.

    Envelope   to | id | hop limit | key id | payload | bucket | reach     (not authenticated, so not trusted)
                                        │
                 key id given:  HPKE to the receiver's hop key with that id     key id None: plain
                                        │
    Inner      src | boot | seq | kind | re | body | Ed25519 signature over to and all of these

Sender and signature are inside the seal: a node that forwards an envelope learns its receiver, not its sender.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from conflux import record
from conflux.control.drop import Drop
from conflux.crypto.sign import ED25519_SIGNATURE_BYTES
from conflux.errors import RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, NODE_ID_BYTES, BootId, NodeId
from conflux.realm.broker.subjects import BUCKET_COUNT
from conflux.realm.card import HOP_KEY_ID_BYTES
from conflux.record import Record, Shape, octets, optional, uint

ENVELOPE_BYTES_MAX = 32768  # chosen: the usual limit of NATS is 1 MiB, and a card is about 14 kB
ENVELOPE_ID_BYTES = 16
BODY_BYTES_MAX = 26 * 1024  # a question with the largest card (24 kB) fits
PAYLOAD_BYTES_MAX = 28 * 1024
PAIRED_BYTES_MAX = 12 * 1024  # a resumption with three relays and an offer of a link has 10
HOP_LIMIT_MAX = 8  # chosen: LANs joined by bridges are few hops wide


class Kind(enum.IntEnum):
    """What a message is about, and what its body is."""

    ACK = 0
    WHO = 1  # a who.Question: which node owns this address, name or node id?
    CARD = 2  # a realm.card.Card: the answer to WHO, and to a message sealed to a key that this node no longer holds
    PRESENCE = 3  # a who.Presence
    OPEN = 10  # stream.handshake
    ACCEPT = 11
    OPEN_REFUSED = 12
    RESUME_CONFLICT = (
        13  # two used the secret of a resumption: nothing that was opened by it counts; no body, no answer
    )
    OFFER = 20  # link signalling: a carrier.interface.Description inside a record of link
    ANSWER = 21
    CANDIDATES = 22
    LINK_REFUSED = 23
    RENEW = 30  # renewal of a credential, to its issuer
    RENEWED = 31  # the answer; or, as a request that ACK answers, what the issuer changed
    LEAVE = 32  # its sender's membership is to end; its issuer answers with ACK
    GRANT = 33  # the root's grant to the receiver, which may issue from then on; answered with ACK
    ADMIT = 34  # a request to join or to be renewed that its sender got on a LAN and passes on to the issuer
    ADMITTED = 35  # the answer
    LISTS_ASK = 40  # lists.Asking: which signed lists the sender holds
    LIST = 41  # a realm.lists.SignedList
    POLICY_TELL = 50  # policies.PolicyTold: which policy the sender holds
    POLICY_ASK = 51  # policies.PolicyAsked: the head or a piece of it
    POLICY_HEAD = 52  # a realm.policy.PolicyHead
    POLICY_PIECE = 53  # a policies.PolicyPiece


LIST_KINDS = frozenset({Kind.LISTS_ASK, Kind.LIST})
"""Kinds that are taken from anybody: lists prove themselves, and have to spread before cards do."""

POLICY_KINDS = frozenset({Kind.POLICY_TELL, Kind.POLICY_ASK, Kind.POLICY_HEAD, Kind.POLICY_PIECE})
"""Kinds that are taken from anybody likewise."""

PLAIN_KINDS = frozenset({Kind.WHO, Kind.CARD, Kind.PRESENCE}) | LIST_KINDS | POLICY_KINDS
"""Kinds that are readable without a key, as keys become known by them.  Every other kind must be sealed."""


class Reach(enum.IntEnum):
    """How far an envelope for all goes."""

    NEAR = 0  # this node's LANs, and those that are joined to them
    ALL = 1  # also over a broker, to this node's area
    REALM = 2  # also to every other area there


_REACHES = uint(max(Reach))
_REACH = Shape(lambda item: Reach(_REACHES.load(item)), int)


@dataclass(frozen=True, slots=True)
class Envelope(Record):
    """One transmission.  A retry has the same payload and a new id: forwarders drop the second copy of an id."""

    BYTES_MAX = ENVELOPE_BYTES_MAX
    SHAPES = (
        optional(octets(NODE_ID_BYTES)),
        octets(ENVELOPE_ID_BYTES),
        uint(HOP_LIMIT_MAX),
        optional(octets(HOP_KEY_ID_BYTES)),
        octets(1, PAYLOAD_BYTES_MAX),
        optional(uint(BUCKET_COUNT - 1)),
        _REACH,
    )

    to: NodeId | None  # None: those that listen to the bucket; without one, all nodes of the area
    id: bytes
    hop_limit: int
    key_id: bytes | None  # None: the payload is a plain Inner
    payload: bytes
    bucket: int | None = None  # of a question; on a LAN such an envelope goes to all neighbours
    reach: Reach = Reach.ALL

    @classmethod
    def _from_item(cls, item: Any) -> Envelope:
        envelope = super(Envelope, cls)._from_item(item)
        if envelope.to is not None and envelope.bucket is not None:
            raise RemoteProtocolError(Drop.MALFORMED, "for one node, and for a bucket")
        return envelope


class Pairing(enum.IntEnum):
    """What a payload under an id of two nodes is: a message of a resumption (stream.resume), or that none is known."""

    RESUME = 1
    RESUMED = 2
    UNKNOWN = 3


_PAIRINGS = uint(max(Pairing))


@dataclass(frozen=True, slots=True)
class Paired(Record):
    """A payload whose key id is an id of two nodes, who are named nowhere."""

    BYTES_MAX = PAYLOAD_BYTES_MAX
    SHAPES = (Shape(lambda item: _pairing(item), int), octets(0, PAIRED_BYTES_MAX))

    what: Pairing
    body: bytes

    @classmethod
    def find_untrusted(cls, payload: bytes) -> Paired | None:
        """Return what a payload decodes as, or None: what is sealed is random, and decodes as nothing."""
        try:
            return cls.decode_untrusted(payload)
        except RemoteProtocolError:
            return None


def _pairing(item: Any) -> Pairing:
    number = _PAIRINGS.load(item)
    if number == 0:
        raise RemoteProtocolError(Drop.MALFORMED, "pairing")
    return Pairing(number)


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
        octets(ED25519_SIGNATURE_BYTES),
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

        to is among them: otherwise a receiver could seal the message to a third node, which would take it as its own.
        """
        return signed_message(to, self.src, self.boot, self.seq, self.kind, self.re, self.body)


def signed_message(to: NodeId | None, src: NodeId, boot: BootId, seq: int, kind: int, re: int, body: bytes) -> bytes:
    """Return the bytes that the sender of an Inner signs."""
    return record.encode([to, src, boot, seq, kind, re, body])
