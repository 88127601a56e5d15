"""Routes: sets them up over an open link, confirms them, takes them down.  Sans-IO.

It knows links by number, labels and route keys; it does not know why a route is wanted, nor streams' keys: sealing and
unsealing a confirmation is lent to it.  A route of one hop is the whole story here; a relay would answer the same SETUP
by sending one of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from conflux.carrier.interface import CloseTether, OpenTether
from conflux.crypto import box, kdf
from conflux.datapath.interface import Hop
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, RealmId, StreamId, TetherId
from conflux.realm.card import Card
from conflux.route import onion
from conflux.route.message import (
    REQUEST_BYTES,
    Confirm,
    Message,
    Refuse,
    Setup,
    Teardown,
    decode_message_untrusted,
    encode_message,
)

CHANNEL_COUNT = 4  # data channels per tether; chosen, see bench/
CONFIRM_TIMEOUT_S = 2.0  # one round trip and one HPKE opening; a neighbour that takes longer is not there
LIFETIME_S = 3600  # a route nobody tears down is forgotten
INCOMING_PER_LINK_MAX = 64  # routes one neighbour may have through us at once
SEEN_COUNT_MAX = 4096  # oldest first; hop keys turn hourly, so a replay older than that cannot be opened


@dataclass(frozen=True, slots=True)
class Transmit:
    """One message for conflux.link.1 of the link."""

    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class RouteReady:
    """Confirmed by the far end, tether open: frames may flow."""

    route: int
    stream: StreamId
    hop: Hop


@dataclass(frozen=True, slots=True)
class RouteFailed:
    """Never became ready.  reason: "timeout", "link-down", or the far end's word such as "unknown-stream"."""

    route: int
    stream: StreamId
    reason: str


@dataclass(frozen=True, slots=True)
class RouteLost:
    """Was ready, is no more."""

    route: int
    stream: StreamId
    hop: Hop
    reason: str


@dataclass(frozen=True, slots=True)
class ReceiverRoute:
    """The far end may send us the stream under hop.label_in."""

    stream: StreamId
    hop: Hop


@dataclass(frozen=True, slots=True)
class ReceiverRouteGone:
    """It may not any more.  last: the stream's END if it sent one, unverified."""

    stream: StreamId
    hop: Hop
    last: bytes


Event = RouteReady | RouteFailed | RouteLost | ReceiverRoute | ReceiverRouteGone


@dataclass(slots=True)
class _Outgoing:
    stream: StreamId
    link: LinkId
    tether: TetherId
    label_in: int
    request: bytes
    route_key: bytes = field(repr=False)
    expires_at: float
    label_out: int = 0  # 0 until confirmed
    tether_up: bool = False
    ready: bool = False

    @property
    def hop(self) -> Hop:
        return Hop(self.link, self.tether, CHANNEL_COUNT, self.label_out, self.label_in)


@dataclass(slots=True)
class _Incoming:
    stream: StreamId
    hop: Hop
    expires_at: float


class Routes:
    """Every route that starts or ends here."""

    def __init__(
        self,
        realm: RealmId,
        *,
        entropy: Callable[[int], bytes],
        unseal_slot: Callable[[bytes, bytes, bytes], bytes],
        accepts: Callable[[StreamId], bool],
        seal_confirmation: Callable[[StreamId, bytes], bytes],
        unseal_confirmation: Callable[[StreamId, bytes], bytes],
    ) -> None:
        """unseal_slot(key id, slot, info): the plaintext, or RemoteProtocolError("stale-key" or "auth").

        accepts(stream): is it a stream we receive?  seal_confirmation(stream, tag) and unseal_confirmation(stream,
        sealed) work under the stream's feedback key.
        """
        self._realm = realm
        self._entropy = entropy
        self._unseal_slot = unseal_slot
        self._accepts = accepts
        self._seal_confirmation = seal_confirmation
        self._unseal_confirmation = unseal_confirmation
        self._route_next = 1
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[tuple[LinkId, int], _Incoming] = {}
        self._seen: dict[bytes, None] = {}
        self._transmits: deque[Transmit] = deque()
        self._commands: deque[OpenTether | CloseTether] = deque()
        self._events: deque[Event] = deque()

    # ── the sending end ──

    def build(self, stream: StreamId, card: Card, link: LinkId, *, now: float) -> int:
        """Set a route up over an open link to the card's node; RouteReady or RouteFailed names the number returned."""
        route = self._route_next
        self._route_next += 1
        hops = (onion.HopKey(card.node_id, card.hop_key_id, card.hop_public),)
        wrapped, keys = onion.wrap(hops, stream, lifetime_s=LIFETIME_S, realm=self._realm, entropy=self._entropy)
        state = _Outgoing(
            stream,
            link,
            TetherId(self._entropy(8)),
            self._fresh_label(link),
            self._entropy(REQUEST_BYTES),
            keys[-1],
            now + CONFIRM_TIMEOUT_S,
        )
        self._outgoing[route] = state
        self._commands.append(OpenTether(link, state.tether, CHANNEL_COUNT))
        self._send(link, Setup(state.request, state.tether, CHANNEL_COUNT, state.label_in, wrapped))
        return route

    def close(self, route: int, last: bytes = b"") -> Hop | None:
        """Tear a route down; last goes with it.  Returns the hop it used, None if the route is unknown."""
        state = self._outgoing.pop(route, None)
        if state is None:
            return None
        if state.label_out:
            self._send(state.link, Teardown(state.label_out, last))
        self._commands.append(CloseTether(state.link, state.tether))
        return state.hop

    def tether_up(self, link: LinkId, tether: TetherId) -> None:
        """The tether's channels are open; no-op unless one of our routes asked for it."""
        for route, state in list(self._outgoing.items()):
            if state.link == link and state.tether == tether and not state.tether_up:
                state.tether_up = True
                self._ready_if_complete(route, state)

    def tether_down(self, link: LinkId, tether: TetherId) -> None:
        """The tether's channels closed: the route over it is over."""
        for route, state in list(self._outgoing.items()):
            if state.link == link and state.tether == tether:
                self._drop_outgoing(route, "tether-down")

    def _ready_if_complete(self, route: int, state: _Outgoing) -> None:
        if state.tether_up and state.label_out and not state.ready:
            state.ready = True
            self._events.append(RouteReady(route, state.stream, state.hop))

    def _drop_outgoing(self, route: int, reason: str) -> None:
        state = self._outgoing.pop(route)
        if state.ready:
            self._events.append(RouteLost(route, state.stream, state.hop, reason))
        else:
            self._events.append(RouteFailed(route, state.stream, reason))

    # ── the receiving end ──

    def drop_receiver(self, stream: StreamId) -> None:
        """Forget every route by which the stream reached us; the far end finds out by our silence."""
        for key, state in list(self._incoming.items()):
            if state.stream == stream:
                del self._incoming[key]
                self._events.append(ReceiverRouteGone(stream, state.hop, b""))

    # ── what a neighbour says ──

    def receive_untrusted(self, link: LinkId, data: bytes, *, now: float) -> None:
        """Take one message of conflux.link.1.  Raises RemoteProtocolError; nothing has then changed."""
        match decode_message_untrusted(data):
            case Setup() as setup:
                self._receive_setup(link, setup, now)
            case Confirm() as confirm:
                self._receive_confirm(link, confirm)
            case Refuse() as refuse:
                self._receive_refuse(link, refuse)
            case Teardown() as teardown:
                self._receive_teardown(link, teardown)

    def _receive_setup(self, link: LinkId, setup: Setup, now: float) -> None:
        if setup.label_back == 0 or setup.channel_count == 0:
            raise RemoteProtocolError("malformed", "label or channel count 0")
        if sum(key[0] == link for key in self._incoming) >= INCOMING_PER_LINK_MAX:
            self._send(link, Refuse(setup.request, b"", b"busy"))
            return
        slot_hash = kdf.sha256(setup.onion[: onion.SLOT_BYTES])
        try:
            if slot_hash in self._seen:
                raise RemoteProtocolError("replay", "the slot was used")
            peeled = onion.peel_untrusted(setup.onion, self._unseal_slot, realm=self._realm)
        except RemoteProtocolError as error:
            self._send(link, Refuse(setup.request, b"", error.reason.encode()))
            raise
        self._remember_slot(slot_hash)
        stream = peeled.stream
        if stream is None or not self._accepts(stream):
            reason = b"unknown-next" if stream is None else b"unknown-stream"
            self._send(link, Refuse(setup.request, box.seal_once(onion.refusal_key(peeled.route_key), reason), b""))
            return
        hop = Hop(link, TetherId(setup.tether), setup.channel_count, setup.label_back, self._fresh_label(link))
        sealed = self._seal_confirmation(stream, onion.tag(peeled.route_key))
        self._incoming[link, hop.label_in] = _Incoming(stream, hop, now + peeled.lifetime_s)
        self._events.append(ReceiverRoute(stream, hop))
        self._send(link, Confirm(setup.request, hop.label_in, sealed))

    def _remember_slot(self, slot_hash: bytes) -> None:
        self._seen[slot_hash] = None
        if len(self._seen) > SEEN_COUNT_MAX:
            del self._seen[next(iter(self._seen))]

    def _receive_confirm(self, link: LinkId, confirm: Confirm) -> None:
        route, state = self._asked(link, confirm.request)
        if confirm.label == 0 or state.label_out:
            raise RemoteProtocolError("malformed", "label 0, or confirmed before")
        tag = self._unseal_confirmation(state.stream, confirm.sealed)
        if not kdf.equal(tag, onion.tag(state.route_key)):
            raise RemoteProtocolError("auth", "the confirmation is of another route")
        state.label_out = confirm.label
        state.expires_at = float("inf")  # a route lives as long as its stream uses it; silence makes it suspect
        self._ready_if_complete(route, state)

    def _receive_refuse(self, link: LinkId, refuse: Refuse) -> None:
        route, state = self._asked(link, refuse.request)
        if state.label_out:
            raise RemoteProtocolError("unexpected", "a refusal of a confirmed route")
        reason = refuse.plain
        if refuse.sealed:
            reason = box.unseal_once(onion.refusal_key(state.route_key), refuse.sealed)
        self._commands.append(CloseTether(link, state.tether))
        self._drop_outgoing(route, reason.decode("ascii", "replace")[:32])

    def _asked(self, link: LinkId, request: bytes) -> tuple[int, _Outgoing]:
        for route, state in self._outgoing.items():
            if state.link == link and state.request == request:
                return route, state
        raise RemoteProtocolError("unexpected", "an answer to no set-up of ours")

    def _receive_teardown(self, link: LinkId, teardown: Teardown) -> None:
        incoming = self._incoming.pop((link, teardown.label), None)
        if incoming is not None:
            self._events.append(ReceiverRouteGone(incoming.stream, incoming.hop, teardown.last))
            return
        for route, state in self._outgoing.items():
            if state.link == link and state.label_in == teardown.label:
                self._commands.append(CloseTether(link, state.tether))
                self._drop_outgoing(route, "peer")
                return
        raise RemoteProtocolError("unknown-label", "a teardown of no route")

    # ── links, time, outputs ──

    def link_down(self, link: LinkId) -> None:
        """Every route over the link is over."""
        for route in [route for route, state in self._outgoing.items() if state.link == link]:
            self._drop_outgoing(route, "link-down")
        for key in [key for key in self._incoming if key[0] == link]:
            state = self._incoming.pop(key)
            self._events.append(ReceiverRouteGone(state.stream, state.hop, b""))

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min((at for at, _ in self._deadlines()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Give up set-ups nobody answered and routes nobody tore down."""
        for at, key in list(self._deadlines()):
            if at > now:
                continue
            if isinstance(key, int):
                state = self._outgoing[key]
                self._commands.append(CloseTether(state.link, state.tether))
                self._drop_outgoing(key, "timeout")
            else:
                incoming = self._incoming.pop(key)
                self._events.append(ReceiverRouteGone(incoming.stream, incoming.hop, b""))

    def _deadlines(self) -> Iterator[tuple[float, int | tuple[LinkId, int]]]:
        for route, state in self._outgoing.items():
            if not state.ready:
                yield state.expires_at, route
        for key, incoming in self._incoming.items():
            yield incoming.expires_at, key

    def next_transmit(self) -> Transmit | None:
        """Return one link message, or None."""
        return self._transmits.popleft() if self._transmits else None

    def next_command(self) -> OpenTether | CloseTether | None:
        """Return one command for the carrier, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> Event | None:
        """Return one event, or None."""
        return self._events.popleft() if self._events else None

    def status(self) -> list[dict[str, object]]:
        """Every route, as plain values."""
        return [
            {"direction": "out", "link": state.link, "label": state.label_out, "ready": state.ready}
            for state in self._outgoing.values()
        ] + [{"direction": "in", "link": link, "label": label, "ready": True} for link, label in self._incoming]

    def _send(self, link: LinkId, message: Message) -> None:
        self._transmits.append(Transmit(link, encode_message(message)))

    def _fresh_label(self, link: LinkId) -> int:
        """Return a random label, not zero, that no other route of ours has on this link."""
        used = {state.label_in for state in self._outgoing.values() if state.link == link}
        while True:
            label = int.from_bytes(self._entropy(4), "big")
            if label and label not in used and (link, label) not in self._incoming:
                return label
