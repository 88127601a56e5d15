"""Why something is dropped, for who looks at the counts: which are a network's daily life, and which call for a look.

The reasons themselves are the `Drop` enums of the machines; a test compares them with the table here, and the table
with docs/reference/status-and-drops.md, which adds what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class DropKind(StrEnum):
    """What a count says."""

    NORMAL = "normal"  # a healthy network has it: a restart, a moved stream, a full queue
    ALARMING = "alarming"  # a rule was broken, bytes were damaged, or something here wants a person


# No named tuples: `conflux status` reads this, and typing takes longer to import than all that it does by itself.
class Meaning:
    """kind: of a reason.  text: one sentence without its full stop."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: DropKind, text: str) -> None:
        self.kind = kind
        self.text = text


class DropRow:
    """One line of the table of drops.  times: since the daemon started."""

    __slots__ = ("kind", "reason", "text", "times")

    def __init__(self, reason: str, times: int, meaning: Meaning) -> None:
        self.reason = reason
        self.times = times
        self.kind = meaning.kind
        self.text = meaning.text

    def shown(self) -> dict[str, object]:
        """Return the line as a record for programs."""
        return {"reason": self.reason, "times": self.times, "kind": self.kind, "text": self.text}


JOIN = "join-"  # before the reason of a refused join
_JOIN_REFUSED = "a node wanted to join and was refused, for the reason that follows"
# Of a join refused: a wrong secret, or bytes that no joiner sends.  The others happen to honest people.
_JOIN_ALARMING = frozenset({"bad-proof", "bad-signature", "flood", "malformed", "oversized", "wrong-answer"})

_NORMAL, _ALARMING = DropKind.NORMAL, DropKind.ALARMING


# Words with one meaning, its kind, and its text.
_ROWS = (
    # Packets of this host.
    ("queue-full", _NORMAL, "more packets waited for a destination than stream.queue_bytes allows"),
    ("aged", _NORMAL, "a packet waited longer than stream.queue_age"),
    ("codel", _NORMAL, "dropped on purpose while a queue is long: TCP slows down by it"),
    ("cleared", _NORMAL, "went with its destination's queue; counted under that reason"),
    ("closed", _NORMAL, "waited when its destination's stream ended; or the far end closed during the handshake"),
    ("unknown-destination", _NORMAL, "no node answers to that overlay address; programs hear No route to host"),
    ("unreachable", _NORMAL, "its node was given up for now; programs hear Network is unreachable"),
    (
        "revoked",
        _NORMAL,
        "this node was revoked; programs hear that it is prohibited; or of a node that is a member no more, "
        "or whose issuer is none; or a signed list of such an issuer",
    ),
    ("no-destination", _NORMAL, "not for the overlay: multicast, another network, this node itself"),
    ("bad-source", _ALARMING, "not from an overlay address of this node"),
    ("pending-full", _ALARMING, "too many unknown addresses are asked for"),
    ("packet-too-big", _ALARMING, "larger than one frame carries"),
    (
        "packet-short packet-version packet-length",
        _ALARMING,
        "no IP packet: shorter than its header, of another version, of another length",
    ),
    ("packet-offload", _ALARMING, "an offload header that does not fit its packet"),
    ("tun-read", _ALARMING, "the device was down"),
    # Packets for this host.
    ("spoofed", _ALARMING, "a peer's packet from an address that is not its own"),
    ("not-ours", _ALARMING, "a peer's packet for an address that is not this node's"),
    ("policy", _ALARMING, "a peer's packet that no rule of the policy lets in"),
    ("policy-unfit", _ALARMING, "a peer's packet whose headers hosts could read in different ways"),
    ("policy-piece", _NORMAL, "a later piece of a datagram whose first piece did not pass, or came after it"),
    ("policy-sent", _NORMAL, "a packet that no rule lets in at its destination; its program is told"),
    ("tun-full delivery-full", _NORMAL, "the device has too many waiting"),
    ("tun-down", _ALARMING, "the device is down"),
    ("tun-closed", _NORMAL, "the device is closed: this node was going down"),
    ("tun-refused", _NORMAL, "the device knows no such packet"),
    # Frames.
    ("unknown-label", _NORMAL, "a frame of a route that is gone, or that came long before its route"),
    ("unknown-stream", _NORMAL, "a confirmation for a stream that is gone"),
    ("unknown-epoch epoch", _NORMAL, "a frame of an epoch that is over, or not begun"),
    ("rekey-early", _ALARMING, "the offer of a key before the one agreed on is used"),
    (
        "rekey-rate",
        _ALARMING,
        "the offer of a key less than 10 s after the one before, or again within half a second",
    ),
    ("replay", _NORMAL, "seen before, or too old to tell"),
    ("auth", _ALARMING, "the tag does not verify: damaged or forged"),
    ("truncated oversized version reserved malformed", _ALARMING, "no frame, or no entry, of this version"),
    ("unknown-kind", _ALARMING, "no frame, or no entry, of this version; or of a kind that may not come so"),
    ("misplaced-entry", _ALARMING, "an entry where it does not belong"),
    ("bad-report", _ALARMING, "a report with impossible counts"),
    (
        "entry-rate feedback-rate",
        _ALARMING,
        "more than a peer may have read: 10 entries a second of a stream, 20 frames of feedback a second of a tether",
    ),
    ("entry-full", _NORMAL, "more entries waited for a stream's next frame than are kept: the oldest go"),
    (
        "upcall-full",
        _ALARMING,
        "more of one kind came for the daemon than it reads: connectivity checks, messages, reports",
    ),
    ("memory", _ALARMING, "no memory was there"),
    # Frames passed on for others.
    ("relay-rate", _NORMAL, "above relay.bytes_per_s"),
    ("relay-full", _NORMAL, "too many waited for the link"),
    ("relay-aged", _NORMAL, "waited longer than 2 s"),
    ("relay-gone", _NORMAL, "the route ended while they waited"),
    # Links.
    ("no-tether", _NORMAL, "frames whose data channels were being closed"),
    ("carrier-full", _NORMAL, "frames that a link had no room for"),
    ("late-carrier-event", _NORMAL, "news of a link that had been given up"),
    ("late-answer late-candidates late-refusal", _NORMAL, "signalling of an attempt that is over"),
    (
        "repeated-answer described-twice opened-twice own-attempt-offered",
        _NORMAL,
        "signalling or news that came twice",
    ),
    ("send-on-closed-link", _NORMAL, "a message for a link that is gone"),
    ("command-without-link", _NORMAL, "a command for a link that is gone"),
    (
        "candidate-refused",
        _NORMAL,
        "a peer's address that is not tried, told or sent from: multicast, loopback, of the overlay, IPv4 in "
        "IPv6, or one too many",
    ),
    ("ice-server-silent", _ALARMING, "a STUN or TURN server did not answer"),
    ("socket-send socket-receive", _NORMAL, "datagrams that the kernel did not take"),
    ("receive-queue-full", _NORMAL, "datagrams that the handshake had no room for"),
    ("not-dtls-nor-stun stun-malformed", _ALARMING, "datagrams that belong to no protocol here"),
    ("stun-auth", _NORMAL, "STUN that proves no password of the link"),
    (
        "stun-repeated",
        _ALARMING,
        "STUN that was heard before, more often than a request is ever sent: another host sends it again",
    ),
    ("stun-rate", _ALARMING, "more STUN than a link, or all links, may have read: 20 and 500 a second"),
    ("dtls-malformed dtls-auth", _ALARMING, "records that were not made with the link's key"),
    ("dtls-replay", _NORMAL, "a record seen before"),
    (
        "dtls-late dtls-sequence",
        _NORMAL,
        "records of a handshake that is over: sent again by the network, or forged",
    ),
    ("sctp-malformed sctp-tag sctp-checksum", _ALARMING, "a packet that is not of this association"),
    (
        "sctp-window sctp-other sctp-window-ignored",
        _NORMAL,
        "chunks that came too early, too late or twice; what matters is repaired",
    ),
    (
        "channel-refused channel-closed reset-refused",
        _NORMAL,
        "data channels of another kind, closed ones, a refused reset",
    ),
    ("tether-unopenable", _NORMAL, "no data channels were left for a route"),
    ("control-unsendable", _NORMAL, "a message for a link that did not take it"),
    ("text-message text-malformed ppid-unknown", _ALARMING, "a message that no node sends"),
    # Control messages.
    (
        "flood",
        _ALARMING,
        "more than is allowed in a second; as a reason of a lost neighbour: it had more to say than is read "
        "for half a minute, or small talk without end",
    ),
    ("duplicate", _NORMAL, "came by two ways, or back to a bridge"),
    ("replayed", _NORMAL, "seen before; also a message that came by two ways"),
    ("late", _NORMAL, "answers nothing that is pending"),
    (
        "unknown-sender",
        _NORMAL,
        "of a node whose card was not here yet; the card is asked for, and the message waits for it",
    ),
    (
        "unknown-chain",
        _NORMAL,
        "a bare card of a neighbour whose chain is not kept here any more; it comes again, whole",
    ),
    (
        "unknown-grant",
        _NORMAL,
        "a short card of a member of an issuer that was not known here yet; it comes again, whole",
    ),
    ("no-card", _NORMAL, "for or of a node whose card is not here"),
    ("stale-card old-boot stale-boot", _NORMAL, "of an earlier life of its sender or of this node"),
    ("unknown-key stale-key", _NORMAL, "sealed to a hop key that is gone; the sender gets the new card"),
    ("bad-seal bad-signature", _ALARMING, "damaged or forged"),
    ("not-sealed unexpected", _ALARMING, "of a kind that may not come so"),
    ("unsolicited wrong-sender misaddressed wrong-answer parameters", _ALARMING, "says or answers what it may not"),
    ("own-echo", _NORMAL, "this node's own, come back"),
    ("not-for-us", _NORMAL, "for another node; at a bridge to a broker: for one that is not on its LANs"),
    ("hop-limit", _NORMAL, "had gone as far as it may"),
    (
        "forward-flood",
        _ALARMING,
        "a bridge: above its bytes per second for a neighbour or a user of the broker, or above what islands "
        "may ask their LAN",
    ),
    ("forward-slow", _NORMAL, "a bridge, or on a large LAN: a neighbour does not read fast enough"),
    (
        "swallows",
        _ALARMING,
        "with control.lan.ring: a neighbour did not pass on what is for every node, and was replaced",
    ),
    ("expired not-yet-valid", _ALARMING, "a credential or card whose dates do not hold"),
    ("list-count", _ALARMING, "a signed list for which there is no room: 64 are kept"),
    ("not-granted", _ALARMING, "a policy whose signer has not the capability to publish one"),
    ("old-policy", _NORMAL, "a policy that is older than the one here"),
    ("foreign-realm", _NORMAL, "of another realm"),
    (
        "wrong-issuer not-issuer bad-address",
        _ALARMING,
        "signed by a node that may not, or for an address that it may not give",
    ),
    (
        "too-soon not-yours unknown-node ended expired-long-ago grant-expired no-address",
        _NORMAL,
        "a renewal that is not given: a moment after the last, of another node, of one not issued here, of one that is "
        "no member any more, of one that ended too long ago, or the issuer has no grant or no address left",
    ),
    # Streams that are opened by a secret of the last one.
    (
        "resume-unknown resume-used resume-late",
        _NORMAL,
        "of a secret that was erased here, or was used; the stream is opened with signatures",
    ),
    (
        "resume-stale resume-no-kem",
        _NORMAL,
        "by a secret of another boot, credential or state of the signed lists, or that is too old; likewise",
    ),
    ("resume-conflict", _ALARMING, "two have used the secret of one node: perhaps its memory was read"),
    ("resume-seal resume-flood", _ALARMING, "made without the secret: damaged or forged"),
    # The broker.
    ("too-late", _NORMAL, "a request to join whose challenge has ended"),
    ("not-permitted", _NORMAL, "the broker does not let this node publish or listen there"),
    # Connections of the LAN.
    ("dial-failed", _NORMAL, "a neighbour's control port could not be reached"),
    ("left-alone", _NORMAL, "an announced place was not dialled: what answered there proved nothing, not long ago"),
    ("mdns-flood", _ALARMING, "more announcements of one address, or of all, than are looked at"),
    ("local", _ALARMING, "this node's own trouble, named in the log"),
    ("self", _NORMAL, "this node dialled itself"),
    ("twin", _ALARMING, "another board has this node's key, as a copied card has"),
    ("no-certificate", _ALARMING, "the far end showed no certificate"),
    ("neighbour-count target-count", _ALARMING, "more neighbours, or announcements, than are kept"),
    ("accept-busy accept-rate", _ALARMING, "too many handshakes at once, or connections of one address or in all"),
    ("handshake handshake-timeout", _NORMAL, "TLS failed, or a handshake took longer than 5 s"),
    ("from-overlay", _NORMAL, "a connection from an address of the overlay itself"),
    ("stopped", _NORMAL, "this node was going down"),
    ("busy", _NORMAL, "too many handshakes at once"),
    ("api-refused", _NORMAL, "commands on this host that were refused"),
    ("library-exception", _ALARMING, "an exception in a library that the daemon uses, named in the log"),
)

MEANINGS: Mapping[str, Meaning] = {
    word: meant for words, kind, text in _ROWS for meant in (Meaning(kind, text),) for word in words.split()
}


def meaning(reason: str) -> Meaning:
    """Return what a count under this reason says; a word that this version does not know is alarming."""
    if reason.startswith(JOIN):
        alarming = reason.removeprefix(JOIN) in _JOIN_ALARMING
        return Meaning(_ALARMING if alarming else _NORMAL, _JOIN_REFUSED)
    return MEANINGS.get(reason, Meaning(_ALARMING, "a word that this version does not know"))


def drop_rows(counts: Mapping[str, int]) -> tuple[DropRow, ...]:
    """Return drops by reason as lines: the alarming first, and of a kind the most first."""
    rows = [DropRow(reason, count, meaning(reason)) for reason, count in counts.items()]
    return tuple(sorted(rows, key=lambda row: (row.kind is _NORMAL, -row.times, row.reason)))


def of_kind(rows: Iterable[DropRow], kind: DropKind) -> tuple[DropRow, ...]:
    """Return the lines of one kind, in their order."""
    return tuple(row for row in rows if row.kind is kind)
