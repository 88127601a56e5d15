"""Why a datapath drops something: the one table of the words that `conflux status` counts under.

The engine has the same words for the same reasons (enum engine_drop in cext/engine/engine.h; a test compares the two).
The node's own reasons, which it gives to refuse() and remove_egress(), are not here.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """One reason.  "Native" marks those that only the engine has."""

    # A packet from the TUN device.  The first three are also said of a packet inside a verified frame.
    PACKET_SHORT = "packet-short"  # smaller than an IP header
    PACKET_VERSION = "packet-version"  # neither IPv4 nor IPv6
    PACKET_LENGTH = "packet-length"  # its header names another size
    PACKET_OFFLOAD = "packet-offload"  # native: an offload header that does not fit its packet
    PACKET_TOO_BIG = "packet-too-big"  # larger than one frame can carry
    BAD_SOURCE = "bad-source"  # not from an address of ours
    POLICY_SENT = "policy-sent"  # no rule at its destination lets its flow in; its program is told
    NO_DESTINATION = "no-destination"  # multicast, another network, or ourselves
    PENDING_FULL = "pending-full"  # the node has been asked for too many addresses already
    QUEUE_FULL = "queue-full"  # the oldest packets go
    AGED = "aged"  # it waited too long for a route
    CODEL = "codel"  # the queue stands, and the packet cannot be marked instead
    CLEARED = "cleared"  # native: the queue was removed; shown under the reason given for that

    # A frame from the carrier.
    TRUNCATED = "truncated"
    OVERSIZED = "oversized"
    VERSION = "version"
    RESERVED = "reserved"
    UNKNOWN_LABEL = "unknown-label"
    UNKNOWN_STREAM = "unknown-stream"  # a confirmation for a stream that is gone
    UNKNOWN_EPOCH = "unknown-epoch"
    REPLAY = "replay"
    AUTH = "auth"
    MALFORMED = "malformed"
    UNKNOWN_KIND = "unknown-kind"
    MISPLACED_ENTRY = "misplaced-entry"  # an entry of a kind that such a frame must not have
    BAD_REPORT = "bad-report"
    UPCALL_FULL = "upcall-full"  # too many upcalls that peers caused wait
    ENTRY_FULL = "entry-full"  # too many entries wait for the stream's next frame; the oldest go

    # A frame passed on.
    RELAY_FULL = "relay-full"
    RELAY_RATE = "relay-rate"  # the neighbour's allowance is spent
    RELAY_AGED = "relay-aged"  # it waited too long
    RELAY_GONE = "relay-gone"  # the route ended while it waited

    # A packet inside a verified frame.
    SPOOFED = "spoofed"  # its source address is not one of the stream's source
    NOT_OURS = "not-ours"  # for an address that is not ours
    POLICY = "policy"  # no rule lets its flow in, and it answers none that began here
    POLICY_UNFIT = "policy-unfit"  # it cannot be judged: headers that hosts read in different ways
    POLICY_PIECE = "policy-piece"  # a later piece of a datagram whose first piece did not pass
    DELIVERY_FULL = "delivery-full"  # the TUN device takes too little

    # Native: what goes with the reference datapath is counted by the carrier and the shell.
    NO_TETHER = "no-tether"
    CARRIER_FULL = "carrier-full"
    TEXT_MESSAGE = "text-message"
    TUN_READ = "tun-read"
    TUN_FULL = "tun-full"
    TUN_DOWN = "tun-down"
    TUN_REFUSED = "tun-refused"
    SOCKET_SEND = "socket-send"
    SOCKET_RECEIVE = "socket-receive"
    NOT_DTLS_NOR_STUN = "not-dtls-nor-stun"
    STUN_MALFORMED = "stun-malformed"
    ENTRY_RATE = "entry-rate"  # more of a stream's entries than Python is to read
    FEEDBACK_RATE = "feedback-rate"  # the same of a link's feedback
    STUN_AUTH = "stun-auth"  # it proves no password of the link
    STUN_RATE = "stun-rate"  # more than Python is to read
    STUN_REPEATED = "stun-repeated"  # a transaction that was read as often as a request is ever sent
    DTLS_MALFORMED = "dtls-malformed"
    DTLS_REPLAY = "dtls-replay"
    DTLS_AUTH = "dtls-auth"
    DTLS_LATE = "dtls-late"  # a record of the handshake after the handshake, or one of too many
    SCTP_MALFORMED = "sctp-malformed"
    SCTP_TAG = "sctp-tag"
    SCTP_CHECKSUM = "sctp-checksum"
    SCTP_WINDOW = "sctp-window"
    SCTP_OTHER = "sctp-other"
    MEMORY = "memory"
