"""Why something is dropped on the control channel: the table of words under which drops are counted.

A credential that does not hold is counted under the words of conflux.realm.reason.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """A reason; `conflux status` shows how often each occurred."""

    # An envelope, before its message is known.
    FLOOD = "flood"  # the neighbour is over its budget
    DUPLICATE = "duplicate"  # the envelope arrived before, perhaps over another channel
    NOT_FOR_US = "not-for-us"
    HOP_LIMIT = "hop-limit"  # a bridge does not pass it on any further
    FORWARD_FLOOD = "forward-flood"  # the neighbour is over its budget of bytes that a bridge passes on
    FORWARD_SLOW = "forward-slow"  # the next neighbour does not keep up
    SWALLOWS = "swallows"  # a neighbour on a large LAN, that does not pass on what is for everybody

    # A message, or the bytes that should be one.
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    VERSION = "version"  # of another version of the protocol
    NOT_SEALED = "not-sealed"  # a kind that must be sealed
    UNKNOWN_KEY = "unknown-key"  # sealed to a hop key that this node does not hold (any more)
    BAD_SEAL = "bad-seal"
    BAD_SIGNATURE = "bad-signature"
    OWN_ECHO = "own-echo"  # a message of this node came back
    UNKNOWN_SENDER = "unknown-sender"  # no card of the sender; it may be asked for
    UNSOLICITED = "unsolicited"  # a card that nothing here waits for
    WRONG_SENDER = "wrong-sender"  # a card of another node than the sender
    UNKNOWN_GRANT = "unknown-grant"  # a card that names its grant by a digest that is not known here
    UNKNOWN_CHAIN = "unknown-chain"  # a card that names its chain by a digest that is not known here
    STALE_CARD = "stale-card"  # an older card than the one held, or a message of a newer boot than the card held
    EXPIRED = "expired"  # the sender's credential has ended
    REVOKED = "revoked"  # a signed list denies the sender
    OLD_BOOT = "old-boot"  # sent before the sender restarted
    REPLAYED = "replayed"  # seen before and without an answer to repeat, or too old to tell
    LATE = "late"  # the answer to a request that is not pending

    # A message of this node's own.
    NO_CARD = "no-card"  # without the receiver's card nothing can be sealed to it

    # A connection on the LAN.
    FROM_OVERLAY = "from-overlay"  # the remote address is on the overlay itself
    ACCEPT_BUSY = "accept-busy"  # too many handshakes at once
    ACCEPT_RATE = "accept-rate"  # too many connections of one address, or in all
    HANDSHAKE = "handshake"  # TLS failed
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    NO_CERTIFICATE = "no-certificate"
    FOREIGN_REALM = "foreign-realm"
    SELF = "self"  # the peer is this node
    TWIN = "twin"  # the peer has this node's key and is another board: its card was copied
    CLOSED = "closed"  # the peer closed the connection during the handshake
    LOCAL = "local"  # an error of this host
    STOPPED = "stopped"  # this node is going down
    NEIGHBOUR_COUNT = "neighbour-count"  # no room for another neighbour
    DIAL_FAILED = "dial-failed"
    MDNS_FLOOD = "mdns-flood"  # more announcements than are looked at
    LEFT_ALONE = "left-alone"  # not dialled: what answered there proved nothing, not long ago
    TARGET_COUNT = "target-count"  # no room for another node that mDNS announces

    # A connection to the broker.
    NOT_PERMITTED = "not-permitted"  # the broker does not let this node publish or listen there
