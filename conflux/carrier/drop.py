"""Why a carrier drops something: the table of words under which drops are counted.

The engine has words of its own for the datagrams and messages that it drops; see datapath/drop.py.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """A reason; `conflux status` shows how often each occurred."""

    # What this node asked for.
    COMMAND_WITHOUT_LINK = "command-without-link"  # the link is gone
    TETHER_UNOPENABLE = "tether-unopenable"  # too many channels or tethers, or no stream is free
    CONTROL_UNSENDABLE = "control-unsendable"  # conflux.link.1 is not open, or too much waits on it
    NO_TETHER = "no-tether"  # a frame for a tether that is gone, or a message on a stream that is none's
    CARRIER_FULL = "carrier-full"  # too much waits on the tether

    # A datagram.
    NOT_DTLS_NOR_STUN = "not-dtls-nor-stun"
    STUN_MALFORMED = "stun-malformed"
    RECEIVE_QUEUE_FULL = "receive-queue-full"  # the handshake does not keep up
    DTLS_LATE = "dtls-late"  # a handshake record, and no handshake is left that it could belong to
    DTLS_SEQUENCE = "dtls-sequence"  # a record of ours under a number that is the engine's; it does not leave

    # Connecting.
    CANDIDATE_REFUSED = "candidate-refused"  # no usable UDP address, or one too many
    ICE_SERVER_SILENT = "ice-server-silent"

    # SCTP and its data channels.
    SCTP_MALFORMED = "sctp-malformed"
    SCTP_WINDOW_IGNORED = "sctp-window-ignored"  # beyond the window that we advertise
    CHANNEL_REFUSED = "channel-refused"  # a channel without a place, or one too many
    CHANNEL_CLOSED = "channel-closed"  # a message on a channel that is not open
    RESET_REFUSED = "reset-refused"  # the peer keeps a stream that we gave back
    PPID_UNKNOWN = "ppid-unknown"
    TEXT_MALFORMED = "text-malformed"  # not UTF-8
    TEXT_MESSAGE = "text-message"  # where only bytes are sent
    OVERSIZED = "oversized"
