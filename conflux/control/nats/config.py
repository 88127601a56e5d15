"""The broker engine's settings and limits."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from conflux.control.envelope import ENVELOPE_BYTES_MAX

Server = tuple[str, int]
"""A host name or an address, and a port."""

# Connecting.  A round tries every server, each a while after the one before it, until one admits this node.
ROUND_S = 4.0  # a slow uplink with 1 s round trip needs it whole
STAGGER_S = 1.0  # a server that hangs costs this much
STALL_S = 2.0  # a handshake that takes longer may have lost whole packets: the next one has small segments
START_S_MAX = 0.5  # of waiting, at random, before the first round: boards on one power switch start at once
LOST_S_MAX = 1.0  # likewise after a server was lost: a thousand handshakes in it take half of a server's core
BACK_OFF_S_MIN = 0.25  # grows twofold with every round that failed
BACK_OFF_S_MAX = 4.0  # counted from the beginning of a round, so that a broker that returns is found within 5 s
REFUSED_S = (10.0, 30.0)  # every server that answered refused: only a newer credential helps
STEADY_S = 10.0  # a connection that lived this long was no flap: the back-off starts anew

# A second connection, to another server: for copies of what had no answer by the first one.
SPARE_START_S_MAX = 10.0  # of waiting, at random, once the first is there
SPARE_LOST_S_MAX = 5.0  # likewise after one of two connections was lost: nothing waits for it
SPARE_RETRY_S = (10.0, 30.0)  # after a round that failed, while the other connection is up

# Pings.  A ping and its answer are 212 bytes with TLS and TCP, so 60 s make 0.2 kB a minute.  Of two connections each
# is pinged less often, as either may hang for a while: 0.25 kB a minute.  Routers keep a silent connection for minutes.
PING_S = 60.0
PAIR_PING_S = 100.0
PING_ANSWER_S_MAX = 10.0
QUIET_S_MAX = 1.0  # after a message to a node or to a bucket: then the server is probed
PROBE_ANSWER_S_MAX = 2.0

RETIRE_S = 1.0  # how long a connection that was replaced still hears: the cluster learns where this node is now
CLOSE_S_MAX = 1.0
SEND_BUFFER_BYTES_MAX = 512 * 1024  # 16 of the largest messages; more are refused
PRESENCE_BUFFER_BYTES_MAX = 64 * 1024  # presence gives way first: the next one says the same

# "Nobody listens" may be wrong at first: a cluster learns only in a moment where a node listens, and those who lost the
# same server come back one after another.  So for a while after a connection was made it is asked again and again.
INTEREST_S = 1.5
INTEREST_RETRY_S = 0.3
SENT_S_MAX = 5.0  # an answer that nobody listens comes within a round trip
SENT_COUNT_MAX = 256  # messages of which that answer may still come; about 200 B each, those of INTEREST_S with bytes
PATH_COUNT_MAX = 4096  # nodes whose path is kept; about 200 B each
EXCLUDED_COUNT_MAX = 1024  # keys of revoked nodes, 32 bytes each; the plane drops what they say in any case

# What one sender, and all of them, may make this node decode, per second and at once.  A server that lies can invent
# as many senders as it likes, hence the second.
SENDER_RATE, SENDER_BURST = 50.0, 200.0
SENDER_COUNT_MAX = 1024
TOTAL_RATE, TOTAL_BURST = 400.0, 1600.0
# What is no message: pings, notices, errors.  A server needs a few an hour.
NOTICE_RATE, NOTICE_BURST = 10.0, 200.0

# The protocol.
INFO_BYTES_MAX = 32 * 1024  # it lists every server of a cluster
LINE_BYTES_MAX = 4096  # servers take no longer one either
HEADER_BYTES_MAX = 1024  # nodes send none; a server's has 16 bytes
MESSAGE_BYTES_MAX = HEADER_BYTES_MAX + ENVELOPE_BYTES_MAX
SKIPPED_BYTES_MAX = 64 * 1024 * 1024  # no server can be set to more; a longer message is none
SAID_CHARS_MAX = 80  # of a server's words, in the log


@dataclass(frozen=True, slots=True)
class NatsConfig:
    """What a person may set.

    ca: certificates in PEM; a server's has to be signed by one of them.  None: those that this system trusts.
    area: the nodes whose presence this node hears.  overlay: prefixes that are never dialled.
    """

    servers: tuple[Server, ...]
    ca: str | None = None
    area: str = "main"
    overlay: tuple[IPv4Network | IPv6Network, ...] = ()
