"""Why something is dropped, for who looks at the counts: which are a network's daily life, and which call for a look.

The reasons themselves are the `Drop` enums of the machines; a test compares them with the table here, and the table
with docs/reference/status-and-drops.md, which adds what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple


class DropKind(StrEnum):
    """What a count says."""

    NORMAL = "normal"  # a healthy network has it: a restart, a moved stream, a full queue
    ALARMING = "alarming"  # a rule was broken, bytes were damaged, or something here wants a person


class Meaning(NamedTuple):
    """kind: of a reason.  text: one sentence without its full stop."""

    kind: DropKind
    text: str


class DropRow(NamedTuple):
    """One line of the table of drops.  times: since the daemon started."""

    reason: str
    times: int
    kind: DropKind
    text: str


JOIN = "join-"  # before the reason of a refused join
_JOIN_REFUSED = "a node wanted to join and was refused, for the reason that follows"
# Of a join refused: a wrong secret, or bytes that no joiner sends.  The others happen to honest people.
_JOIN_ALARMING = frozenset({"bad-proof", "bad-signature", "flood", "malformed", "oversized", "wrong-answer"})

_NORMAL, _ALARMING = DropKind.NORMAL, DropKind.ALARMING


class _Row(NamedTuple):
    words: str
    kind: DropKind
    text: str


_ROWS = (
    # Packets of this host.
    _Row("queue-full", _NORMAL, "more packets waited for a destination than stream.queue_bytes allows"),
    _Row("aged", _NORMAL, "a packet waited longer than stream.queue_age"),
    _Row("codel", _NORMAL, "dropped on purpose while a queue is long: TCP slows down by it"),
    _Row("cleared", _NORMAL, "went with its destination's queue; counted under that reason"),
    _Row("closed", _NORMAL, "waited when its destination's stream ended; or the far end closed during the handshake"),
    _Row("unknown-destination", _NORMAL, "no node answers to that overlay address; programs hear No route to host"),
    _Row("unreachable", _NORMAL, "its node was given up for now; programs hear Network is unreachable"),
    _Row(
        "revoked",
        _NORMAL,
        "this node was revoked; programs hear that it is prohibited; or of a node that is a member no more, "
        "or whose issuer is none; or a signed list of such an issuer",
    ),
    _Row("no-destination", _NORMAL, "not for the overlay: multicast, another network, this node itself"),
    _Row("bad-source", _ALARMING, "not from an overlay address of this node"),
    _Row("pending-full", _ALARMING, "too many unknown addresses are asked for"),
    _Row("packet-too-big", _ALARMING, "larger than one frame carries"),
    _Row(
        "packet-short packet-version packet-length",
        _ALARMING,
        "no IP packet: shorter than its header, of another version, of another length",
    ),
    _Row("packet-offload", _ALARMING, "an offload header that does not fit its packet"),
    _Row("tun-read", _ALARMING, "the device was down"),
    # Packets for this host.
    _Row("spoofed", _ALARMING, "a peer's packet from an address that is not its own"),
    _Row("not-ours", _ALARMING, "a peer's packet for an address that is not this node's"),
    _Row("tun-full delivery-full", _NORMAL, "the device has too many waiting"),
    _Row("tun-down", _ALARMING, "the device is down"),
    _Row("tun-closed", _NORMAL, "the device is closed: this node was going down"),
    _Row("tun-refused", _NORMAL, "the device knows no such packet"),
    # Frames.
    _Row("unknown-label", _NORMAL, "a frame of a route that is gone, or that came long before its route"),
    _Row("unknown-stream", _NORMAL, "a confirmation for a stream that is gone"),
    _Row("unknown-epoch epoch", _NORMAL, "a frame of an epoch that is over, or not begun"),
    _Row("rekey-early", _ALARMING, "the offer of a key before the one agreed on is used"),
    _Row(
        "rekey-rate",
        _ALARMING,
        "the offer of a key less than 10 s after the one before, or again within half a second",
    ),
    _Row("replay", _NORMAL, "seen before, or too old to tell"),
    _Row("auth", _ALARMING, "the tag does not verify: damaged or forged"),
    _Row("truncated oversized version reserved malformed", _ALARMING, "no frame, or no entry, of this version"),
    _Row("unknown-kind", _ALARMING, "no frame, or no entry, of this version; or of a kind that may not come so"),
    _Row("misplaced-entry", _ALARMING, "an entry where it does not belong"),
    _Row("bad-report", _ALARMING, "a report with impossible counts"),
    _Row(
        "entry-rate feedback-rate",
        _ALARMING,
        "more than a peer may have read: 10 entries a second of a stream, 20 frames of feedback a second of a tether",
    ),
    _Row("entry-full", _NORMAL, "more entries waited for a stream's next frame than are kept: the oldest go"),
    _Row(
        "upcall-full",
        _ALARMING,
        "more of one kind came for the daemon than it reads: connectivity checks, messages, reports",
    ),
    _Row("memory", _ALARMING, "no memory was there"),
    # Frames passed on for others.
    _Row("relay-rate", _NORMAL, "above relay.bytes_per_s"),
    _Row("relay-full", _NORMAL, "too many waited for the link"),
    _Row("relay-aged", _NORMAL, "waited longer than 2 s"),
    _Row("relay-gone", _NORMAL, "the route ended while they waited"),
    # Links.
    _Row("no-tether", _NORMAL, "frames whose data channels were being closed"),
    _Row("carrier-full", _NORMAL, "frames that a link had no room for"),
    _Row("late-carrier-event", _NORMAL, "news of a link that had been given up"),
    _Row("late-answer late-candidates late-refusal", _NORMAL, "signalling of an attempt that is over"),
    _Row(
        "repeated-answer described-twice opened-twice own-attempt-offered",
        _NORMAL,
        "signalling or news that came twice",
    ),
    _Row("send-on-closed-link", _NORMAL, "a message for a link that is gone"),
    _Row("command-without-link", _NORMAL, "a command for a link that is gone"),
    _Row(
        "candidate-refused",
        _NORMAL,
        "a peer's address that is not tried, told or sent from: multicast, loopback, of the overlay, IPv4 in "
        "IPv6, or one too many",
    ),
    _Row("ice-server-silent", _ALARMING, "a STUN or TURN server did not answer"),
    _Row("socket-send socket-receive", _NORMAL, "datagrams that the kernel did not take"),
    _Row("receive-queue-full", _NORMAL, "datagrams that the handshake had no room for"),
    _Row("not-dtls-nor-stun stun-malformed", _ALARMING, "datagrams that belong to no protocol here"),
    _Row("stun-auth", _NORMAL, "STUN that proves no password of the link"),
    _Row(
        "stun-repeated",
        _ALARMING,
        "STUN that was heard before, more often than a request is ever sent: another host sends it again",
    ),
    _Row("stun-rate", _ALARMING, "more STUN than a link, or all links, may have read: 20 and 500 a second"),
    _Row("dtls-malformed dtls-auth", _ALARMING, "records that were not made with the link's key"),
    _Row("dtls-replay", _NORMAL, "a record seen before"),
    _Row(
        "dtls-late dtls-sequence",
        _NORMAL,
        "records of a handshake that is over: sent again by the network, or forged",
    ),
    _Row("sctp-malformed sctp-tag sctp-checksum", _ALARMING, "a packet that is not of this association"),
    _Row(
        "sctp-window sctp-other sctp-window-ignored",
        _NORMAL,
        "chunks that came too early, too late or twice; what matters is repaired",
    ),
    _Row(
        "channel-refused channel-closed reset-refused",
        _NORMAL,
        "data channels of another kind, closed ones, a refused reset",
    ),
    _Row("tether-unopenable", _NORMAL, "no data channels were left for a route"),
    _Row("control-unsendable", _NORMAL, "a message for a link that did not take it"),
    _Row("text-message text-malformed ppid-unknown", _ALARMING, "a message that no node sends"),
    # Control messages.
    _Row(
        "flood",
        _ALARMING,
        "more than is allowed in a second; as a reason of a lost neighbour: it had more to say than is read "
        "for half a minute, or small talk without end",
    ),
    _Row("duplicate", _NORMAL, "came by two ways, or back to a bridge"),
    _Row("replayed", _NORMAL, "seen before; also a message that came by two ways"),
    _Row("late", _NORMAL, "answers nothing that is pending"),
    _Row(
        "unknown-sender",
        _NORMAL,
        "of a node whose card was not here yet; the card is asked for, and the message waits for it",
    ),
    _Row(
        "unknown-grant",
        _NORMAL,
        "a short card of a member of an issuer that was not known here yet; it comes again, whole",
    ),
    _Row("no-card", _NORMAL, "for or of a node whose card is not here"),
    _Row("stale-card old-boot stale-boot", _NORMAL, "of an earlier life of its sender or of this node"),
    _Row("unknown-key stale-key", _NORMAL, "sealed to a hop key that is gone; the sender gets the new card"),
    _Row("bad-seal bad-signature", _ALARMING, "damaged or forged"),
    _Row("not-sealed unexpected", _ALARMING, "of a kind that may not come so"),
    _Row("unsolicited wrong-sender misaddressed wrong-answer parameters", _ALARMING, "says or answers what it may not"),
    _Row("own-echo", _NORMAL, "this node's own, come back"),
    _Row("not-for-us", _NORMAL, "for another node; at a bridge to a broker: for one that is not on its LANs"),
    _Row("hop-limit", _NORMAL, "had gone as far as it may"),
    _Row(
        "forward-flood",
        _ALARMING,
        "a bridge: above its bytes per second for a neighbour or a user of the broker, or above what islands "
        "may ask their LAN",
    ),
    _Row("forward-slow", _NORMAL, "a bridge: a neighbour does not read fast enough"),
    _Row("expired not-yet-valid", _ALARMING, "a credential or card whose dates do not hold"),
    _Row("list-count", _ALARMING, "a signed list for which there is no room: 64 are kept"),
    _Row("foreign-realm", _NORMAL, "of another realm"),
    _Row(
        "wrong-issuer not-issuer bad-address",
        _ALARMING,
        "signed by a node that may not, or for an address that it may not give",
    ),
    _Row(
        "too-soon not-yours unknown-node ended expired-long-ago grant-expired no-address",
        _NORMAL,
        "a renewal that is not given: a moment after the last, of another node, of one not issued here, of one that is "
        "no member any more, of one that ended too long ago, or the issuer has no grant or no address left",
    ),
    # The broker.
    _Row("too-late", _NORMAL, "a request to join whose challenge has ended"),
    _Row("not-permitted", _NORMAL, "the broker does not let this node publish or listen there"),
    # Connections of the LAN.
    _Row("dial-failed", _NORMAL, "a neighbour's control port could not be reached"),
    _Row("left-alone", _NORMAL, "an announced place was not dialled: what answered there proved nothing, not long ago"),
    _Row("mdns-flood", _ALARMING, "more announcements of one address, or of all, than are looked at"),
    _Row("local", _ALARMING, "this node's own trouble, named in the log"),
    _Row("self", _NORMAL, "this node dialled itself"),
    _Row("twin", _ALARMING, "another board has this node's key, as a copied card has"),
    _Row("no-certificate", _ALARMING, "the far end showed no certificate"),
    _Row("neighbour-count target-count", _ALARMING, "more neighbours, or announcements, than are kept"),
    _Row("accept-busy accept-rate", _ALARMING, "too many handshakes at once, or connections of one address or in all"),
    _Row("handshake handshake-timeout", _NORMAL, "TLS failed, or a handshake took longer than 5 s"),
    _Row("from-overlay", _NORMAL, "a connection from an address of the overlay itself"),
    _Row("stopped", _NORMAL, "this node was going down"),
    _Row("busy", _NORMAL, "too many handshakes at once"),
    _Row("api-refused", _NORMAL, "commands on this host that were refused"),
    _Row("library-exception", _ALARMING, "an exception in a library that the daemon uses, named in the log"),
)

MEANINGS: Mapping[str, Meaning] = {word: Meaning(row.kind, row.text) for row in _ROWS for word in row.words.split()}


def meaning(reason: str) -> Meaning:
    """Return what a count under this reason says; a word that this version does not know is alarming."""
    if reason.startswith(JOIN):
        alarming = reason.removeprefix(JOIN) in _JOIN_ALARMING
        return Meaning(_ALARMING if alarming else _NORMAL, _JOIN_REFUSED)
    return MEANINGS.get(reason, Meaning(_ALARMING, "a word that this version does not know"))


def drop_rows(counts: Mapping[str, int]) -> tuple[DropRow, ...]:
    """Return drops by reason as lines: the alarming first, and of a kind the most first."""
    rows = [DropRow(reason, count, *meaning(reason)) for reason, count in counts.items()]
    return tuple(sorted(rows, key=lambda row: (row.kind is _NORMAL, -row.times, row.reason)))


def of_kind(rows: Iterable[DropRow], kind: DropKind) -> tuple[DropRow, ...]:
    """Return the lines of one kind, in their order."""
    return tuple(row for row in rows if row.kind is kind)
