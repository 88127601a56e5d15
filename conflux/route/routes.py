"""Routes: sets them up over an open link, confirms them, takes them down.  Sans-IO.

It knows the numbers of links, labels and route keys.  It does not know why a route is wanted, nor the keys of streams:
the caller lends it the sealing and unsealing of a confirmation.  Routes that pass through this node are relays.py's;
set-ups for both come in here.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from conflux.budget import BudgetTable
from conflux.carrier.interface import TETHER_CHANNEL_COUNT, CloseTether, Hop, OpenTether
from conflux.crypto import box, kdf
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import TETHER_ID_BYTES, LinkId, RealmId, StreamId, TetherId
from conflux.route import onion
from conflux.route.event import (
    Event,
    ReceiverRoute,
    ReceiverRouteGone,
    RouteAsked,
    RouteEnd,
    RouteFailed,
    RouteLost,
    RouteReady,
    RouteStatus,
    Transmit,
)
from conflux.route.labels import Labels
from conflux.route.message import (
    REQUEST_BYTES,
    Confirm,
    Message,
    Refusal,
    RefusalWord,
    Refuse,
    Setup,
    Teardown,
    decode_message_untrusted,
    encode_message,
    refusal_untrusted,
    wished_label,
)
from conflux.route.relays import Relays, refuse

CONFIRM_TIMEOUT_S = 2.0  # one round trip and one HPKE opening; a neighbour that takes longer counts as gone
RELAYED_TIMEOUT_S = 6.0  # relays open links for it, and give up a second earlier (relays.py)
HOP_COUNT_MAX = onion.SLOT_COUNT
LIFETIME_S = 3600  # a route that is never torn down is forgotten after this
INCOMING_PER_LINK_MAX = 256  # routes that end here and come from one neighbour: a gateway behind one relay has many
# Set-ups of one neighbour that are looked at, per second and at once: each costs an HPKE opening.  At once as many as
# it may have routes that end here; chosen.
SETUP_RATE, SETUP_BURST = 20, 256
LINK_COUNT_MAX = 256  # links whose rate is remembered
# A set-up may overtake the message that opens its stream, where a peer opened that by a secret and uses it at once.
# It waits here for less than its sender waits for an answer.
HOLD_S = CONFIRM_TIMEOUT_S / 2
HELD_COUNT_MAX, HELD_PER_LINK_MAX = 16, 4
# Slots; the oldest goes first.  Hop keys turn hourly, so an older replay does not open.  One that is not sealed does,
# and gives the neighbour that sends it nothing which it could not make anew.
SEEN_COUNT_MAX = 4096


@dataclass(slots=True)
class _Outgoing:
    stream: StreamId
    link: LinkId
    tether: TetherId
    label_in: int
    request: bytes
    route_keys: tuple[bytes, ...] = field(repr=False)  # one per hop, the last hop's last
    expires_at: float
    label_out: int = 0  # 0 until confirmed
    tether_up: bool = False
    ready: bool = False

    @property
    def hop(self) -> Hop:
        return Hop(self.link, self.tether, TETHER_CHANNEL_COUNT, self.label_out, self.label_in)


@dataclass(frozen=True, slots=True)
class _Held:
    """A set-up whose stream is not known yet."""

    link: LinkId
    setup: Setup
    peeled: onion.Peeled
    stream: StreamId
    until: float


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
        relaying: bool,
        awaits_stream: Callable[[], bool] = lambda: False,
    ) -> None:
        """unseal_slot(key id, slot, info): the plaintext, or RemoteProtocolError("stale-key" or "auth").

        accepts(stream): whether this node receives it.  seal_confirmation(stream, tag) and unseal_confirmation(stream,
        sealed) work under the stream's feedback key.  relaying: pass the routes of others on.  awaits_stream: whether
        a message is on its way that opens a stream which its peer may use already.
        """
        self._realm = realm
        self._entropy = entropy
        self._unseal_slot = unseal_slot
        self._accepts = accepts
        self._seal_confirmation = seal_confirmation
        self._unseal_confirmation = unseal_confirmation
        self._labels = Labels(entropy)
        self.relays = Relays(entropy=entropy, labels=self._labels, channel_count=TETHER_CHANNEL_COUNT)
        self.relaying = relaying  # may change: a right is granted, or taken back
        self._route_next = 1
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[tuple[LinkId, int], _Incoming] = {}
        self._awaits_stream = awaits_stream
        self._held: list[_Held] = []
        self._seen: dict[bytes, None] = {}
        self._setup_budget = BudgetTable(SETUP_RATE, SETUP_BURST, LINK_COUNT_MAX)
        self._transmits: deque[Transmit] = deque()
        self._commands: deque[OpenTether | CloseTether] = deque()
        self._events: deque[Event] = deque()

    # ── the sending end ──

    def build(self, stream: StreamId, hops: Sequence[onion.HopKey], link: LinkId, *, now: float) -> int:
        """Set a route up over an open link to the first hop; RouteReady or RouteFailed names the number returned.

        RouteAsked comes before, if frames may follow the set-up at once.

        hops: one to four, the stream's receiver last.  Raises RemoteProtocolError if a hop's key is malformed.
        """
        wrapped, route_keys = onion.wrap(hops, stream, lifetime_s=LIFETIME_S, realm=self._realm, entropy=self._entropy)
        route = self._route_next
        self._route_next += 1
        state = _Outgoing(
            stream,
            link,
            TetherId(self._entropy(TETHER_ID_BYTES)),
            self._labels.take(link),
            self._entropy(REQUEST_BYTES),
            route_keys,
            now + (CONFIRM_TIMEOUT_S if len(hops) == 1 else RELAYED_TIMEOUT_S),
        )
        self._outgoing[route] = state
        self._commands.append(OpenTether(link, state.tether, TETHER_CHANNEL_COUNT))
        self._send(link, Setup(state.request, state.tether, TETHER_CHANNEL_COUNT, state.label_in, wrapped))
        wish = wished_label(state.request) if len(hops) == 1 else 0
        if wish:
            self._events.append(RouteAsked(route, stream, state.hop._replace(label_out=wish)))
        return route

    def close(self, route: int, last: bytes = b"") -> Hop | None:
        """Tear a route down; last goes with the teardown.  Returns the hop it used, None if the route is unknown."""
        state = self._outgoing.pop(route, None)
        if state is None:
            return None
        self._labels.free(state.link, state.label_in)
        if state.label_out:
            self._send(state.link, Teardown(state.label_out, last))
        self._commands.append(CloseTether(state.link, state.tether))
        return state.hop

    def tether_up(self, link: LinkId, tether: TetherId) -> None:
        """Take note that a tether's channels are open; no-op unless a route that starts here asked for it."""
        for route, state in list(self._outgoing.items()):
            if state.link == link and state.tether == tether and not state.tether_up:
                state.tether_up = True
                self._ready_if_complete(route, state)
        self.relays.tether_up(link, tether)

    def tether_down(self, link: LinkId, tether: TetherId) -> None:
        """End the route over a tether whose channels closed."""
        for route, state in list(self._outgoing.items()):
            if state.link == link and state.tether == tether:
                self._drop_outgoing(route, RouteEnd.TETHER_DOWN)
        self.relays.tether_down(link, tether)

    def _ready_if_complete(self, route: int, state: _Outgoing) -> None:
        if state.tether_up and state.label_out and not state.ready:
            state.ready = True
            self._events.append(RouteReady(route, state.stream, state.hop))

    def _drop_outgoing(self, route: int, end: RouteEnd, refusal: Refusal | None = None) -> None:
        state = self._outgoing.pop(route)
        self._labels.free(state.link, state.label_in)
        if state.ready:
            self._events.append(RouteLost(route, state.stream, state.hop, end))
        else:
            self._events.append(RouteFailed(route, state.stream, end, refusal))

    def _drop_incoming(self, key: tuple[LinkId, int], last: bytes) -> None:
        state = self._incoming.pop(key)
        self._labels.free(*key)
        self._events.append(ReceiverRouteGone(state.stream, state.hop, last))

    # ── the receiving end ──

    def drop_receiver(self, stream: StreamId) -> None:
        """Forget every route by which a stream came here; the far end notices that no feedback comes."""
        for key, state in list(self._incoming.items()):
            if state.stream == stream:
                self._drop_incoming(key, b"")

    # ── what a neighbour sends ──

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
            self._send(link, Refuse(setup.request, b"", RefusalWord.BUSY.encode()))
            return
        if not self._setup_budget.take(link, now):
            self._send(link, Refuse(setup.request, b"", RefusalWord.BUSY.encode()))
            raise RemoteProtocolError("flood", "set-ups")
        slot_hash = kdf.sha256(setup.onion[: onion.SLOT_BYTES])
        try:
            if slot_hash in self._seen:
                raise RemoteProtocolError("replay", "the slot was used")
            peeled = onion.peel_untrusted(setup.onion, self._unseal_slot, realm=self._realm)
        except RemoteProtocolError as error:
            self._send(link, Refuse(setup.request, b"", error.reason.encode()))
            raise
        self._remember_slot(slot_hash)
        if peeled.stream is not None:
            self._receive_last_hop(link, setup, peeled, peeled.stream, now)
        elif self.relaying:
            self.relays.begin(link, setup, peeled, now=now)
        else:
            self._send(link, refuse(setup.request, peeled.route_key, RefusalWord.NO_RELAY))

    def _receive_last_hop(self, link: LinkId, setup: Setup, peeled: onion.Peeled, stream: StreamId, now: float) -> None:
        if not self._accepts(stream):
            if self._awaits_stream() and self._may_hold(link):
                self._held.append(_Held(link, setup, peeled, stream, now + HOLD_S))
            else:
                self._send(link, refuse(setup.request, peeled.route_key, RefusalWord.UNKNOWN_STREAM))
            return
        label = self._labels.take(link, wished_label(setup.request))
        hop = Hop(link, TetherId(setup.tether), setup.channel_count, setup.label_back, label)
        sealed = self._seal_confirmation(stream, onion.tag(peeled.route_key))
        self._incoming[link, hop.label_in] = _Incoming(stream, hop, now + peeled.lifetime_s)
        self._events.append(ReceiverRoute(stream, hop))
        self._send(link, Confirm(setup.request, hop.label_in, sealed))

    def _may_hold(self, link: LinkId) -> bool:
        own = sum(held.link == link for held in self._held)
        return own < HELD_PER_LINK_MAX and len(self._held) < HELD_COUNT_MAX

    def stream_opened(self, stream: StreamId, *, now: float) -> None:
        """Confirm the set-ups that came before the stream was known."""
        for held in [held for held in self._held if held.stream == stream]:
            self._held.remove(held)
            self._receive_last_hop(held.link, held.setup, held.peeled, stream, now)

    def _remember_slot(self, slot_hash: bytes) -> None:
        self._seen[slot_hash] = None
        if len(self._seen) > SEEN_COUNT_MAX:
            del self._seen[next(iter(self._seen))]

    def _receive_confirm(self, link: LinkId, confirm: Confirm) -> None:
        if self.relays.receive_confirm(link, confirm):
            return
        try:
            route, state = self._asked(link, confirm.request)
        except RemoteProtocolError:
            if confirm.label:  # of a set-up given up meanwhile: else the far end keeps the route for its lifetime
                self._send(link, Teardown(confirm.label, b""))
            raise
        if confirm.label == 0 or state.label_out:
            raise RemoteProtocolError("malformed", "label 0, or confirmed before")
        tag = self._unseal_confirmation(state.stream, confirm.sealed)
        if not kdf.equal(tag, onion.tag(state.route_keys[-1])):
            raise RemoteProtocolError("auth", "the confirmation is of another route")
        state.label_out = confirm.label
        state.expires_at = float("inf")  # a confirmed route lives as long as its stream uses it
        self._ready_if_complete(route, state)

    def _receive_refuse(self, link: LinkId, refuse: Refuse) -> None:
        if self.relays.receive_refuse(link, refuse):
            return
        route, state = self._asked(link, refuse.request)
        if state.label_out:
            raise RemoteProtocolError("unexpected", "a refusal of a confirmed route")
        hop, said = (0, refuse.plain) if not refuse.sealed else _open_refusal(state.route_keys, refuse.sealed)
        self._commands.append(CloseTether(link, state.tether))
        self._drop_outgoing(route, RouteEnd.REFUSED, refusal_untrusted(hop, said))

    def _asked(self, link: LinkId, request: bytes) -> tuple[int, _Outgoing]:
        for route, state in self._outgoing.items():
            if state.link == link and state.request == request:
                return route, state
        raise RemoteProtocolError("unexpected", "an answer to no set-up of this node")

    def _receive_teardown(self, link: LinkId, teardown: Teardown) -> None:
        if self.relays.receive_teardown(link, teardown):
            return
        if (link, teardown.label) in self._incoming:
            self._drop_incoming((link, teardown.label), teardown.last)
            return
        for route, state in self._outgoing.items():
            if state.link == link and state.label_in == teardown.label:
                self._commands.append(CloseTether(link, state.tether))
                self._drop_outgoing(route, RouteEnd.TORN_DOWN)
                return
        raise RemoteProtocolError("unknown-label", "a teardown of no route")

    # ── links, time, outputs ──

    def link_down(self, link: LinkId, *, let_go: bool = False) -> None:
        """End every route over a link that closed.  let_go: the far end closed it in good order."""
        end = RouteEnd.LINK_CLOSED if let_go else RouteEnd.LINK_DOWN
        for route in [route for route, state in self._outgoing.items() if state.link == link]:
            self._drop_outgoing(route, end)
        for key in [key for key in self._incoming if key[0] == link]:
            self._drop_incoming(key, b"")
        self._held = [held for held in self._held if held.link != link]
        self.relays.link_down(link, let_go=let_go)
        self._setup_budget.forget(link)

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        wake_ats = [*(at for at, _ in self._deadlines()), *(held.until for held in self._held)]
        relays_at = self.relays.next_timeout()
        return min(wake_ats if relays_at is None else [*wake_ats, relays_at], default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Give up set-ups that got no answer, refuse those whose stream never came, forget routes that are too old."""
        for held in [held for held in self._held if held.until <= now]:
            self._held.remove(held)
            refusal = refuse(held.setup.request, held.peeled.route_key, RefusalWord.UNKNOWN_STREAM)
            self._send(held.link, refusal)
        for at, key in list(self._deadlines()):
            if at > now:
                continue
            if isinstance(key, int):
                state = self._outgoing[key]
                self._commands.append(CloseTether(state.link, state.tether))
                self._drop_outgoing(key, RouteEnd.TIMEOUT)
            else:
                self._drop_incoming(key, b"")
        self.relays.handle_timeout(now=now)

    def _deadlines(self) -> Iterator[tuple[float, int | tuple[LinkId, int]]]:
        for route, state in self._outgoing.items():
            if not state.ready:
                yield state.expires_at, route
        for key, incoming in self._incoming.items():
            yield incoming.expires_at, key

    def next_transmit(self) -> Transmit | None:
        """Return one link message, or None."""
        return self._transmits.popleft() if self._transmits else self.relays.next_transmit()

    def next_command(self) -> OpenTether | CloseTether | None:
        """Return one command for the carrier, or None."""
        return self._commands.popleft() if self._commands else self.relays.next_command()

    def next_event(self) -> Event | None:
        """Return one event, or None."""
        return self._events.popleft() if self._events else None

    def status(self) -> tuple[RouteStatus, ...]:
        """Return every route that starts or ends here."""
        return (
            *(RouteStatus("out", state.link, state.label_out, state.ready) for state in self._outgoing.values()),
            *(RouteStatus("in", link, label, ready=True) for link, label in self._incoming),
        )

    def _send(self, link: LinkId, message: Message) -> None:
        self._transmits.append(Transmit(link, encode_message(message)))


def _open_refusal(route_keys: Sequence[bytes], sealed: bytes) -> tuple[int, bytes]:
    """Return the hop that refused, counted from 0, and its text.  Raises AuthError if it was none of the route's."""
    for hop, key in enumerate(route_keys):
        with contextlib.suppress(AuthError):
            return hop, box.unseal_once(onion.refusal_key(key), sealed)
    raise AuthError("a refusal by none of the route's hops")
