"""Relaying: passes set-ups on, joins the two ends of a route by labels, and knows no more than that.  Sans-IO.

    before ──SETUP──► here ──link to the next hop──► SETUP ──► next
    before ◄─CONFIRM─ here ◄──────────────────────── CONFIRM ─ next        then the datapath switches frames

While a set-up is under way, its next node, its onion and its route key are held; they are gone once it is confirmed or
refused.  Of a confirmed route remain two links with two labels each, an expiry and the datapath's counters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from conflux.carrier.interface import CloseTether, Hop, OpenTether
from conflux.crypto import box
from conflux.errors import RemoteProtocolError
from conflux.ids import TETHER_ID_BYTES, LinkId, NodeId, TetherId
from conflux.route import onion
from conflux.route.event import LinkWanted, RelayEndStatus, RelayEvent, RelayGone, RelayReady, RelayStatus, Transmit
from conflux.route.labels import Labels
from conflux.route.message import (
    NEXT,
    REQUEST_BYTES,
    Confirm,
    Message,
    RefusalWord,
    Refuse,
    Setup,
    Teardown,
    encode_message,
    said_untrusted,
)

SETUP_TIMEOUT_S = 5.0  # a dial, and the rest of the route behind it
RELAY_COUNT_MAX = 1024  # routes through this node
RELAY_PER_NEIGHBOUR_MAX = 128  # of them for one neighbour, so that one alone cannot take the room of all others


@dataclass(slots=True)
class _SetUp:
    """Needed until the route is confirmed, and dropped then."""

    request_before: bytes
    request_ahead: bytes
    next: NodeId
    rest: bytes = field(repr=False)
    route_key: bytes = field(repr=False)
    sealed: bytes = b""  # the confirmation, while the tether to the next hop is not open yet
    tether_up: bool = False


@dataclass(slots=True)
class _Side:
    link: LinkId
    tether: TetherId
    channel_count: int
    label_in: int = 0
    label_out: int = 0

    @property
    def hop(self) -> Hop:
        return Hop(self.link, self.tether, self.channel_count, self.label_out, self.label_in)

    @property
    def status(self) -> RelayEndStatus:
        return RelayEndStatus(self.link, self.label_in, self.label_out)


@dataclass(slots=True)
class _Relay:
    before: _Side
    expires_at: float
    lifetime_s: int
    set_up: _SetUp | None
    ahead: _Side | None = None


class Relays:
    """Every route that passes through here."""

    def __init__(self, *, entropy: Callable[[int], bytes], labels: Labels, channel_count: int) -> None:
        self._entropy = entropy
        self._labels = labels
        self._channel_count = channel_count
        self._next = 1
        self._relays: dict[int, _Relay] = {}
        self._transmits: deque[Transmit] = deque()
        self._commands: deque[OpenTether | CloseTether] = deque()
        self._events: deque[RelayEvent] = deque()

    # ── set-up ──

    def begin(self, link: LinkId, setup: Setup, peeled: onion.Peeled, *, now: float) -> None:
        """Pass a set-up on; it begins with a link to the next hop."""
        assert peeled.next is not None
        asked = sum(relay.before.link == link for relay in self._relays.values())
        if asked >= RELAY_PER_NEIGHBOUR_MAX or len(self._relays) >= RELAY_COUNT_MAX:
            self._send(link, refuse(setup.request, peeled.route_key, RefusalWord.BUSY))
            return
        number = self._next
        self._next += 1
        before = _Side(link, TetherId(setup.tether), setup.channel_count, label_out=setup.label_back)
        set_up = _SetUp(setup.request, self._entropy(REQUEST_BYTES), peeled.next, peeled.rest, peeled.route_key)
        self._relays[number] = _Relay(before, now + SETUP_TIMEOUT_S, peeled.lifetime_s, set_up)
        self._events.append(LinkWanted(number, link, peeled.next))

    def link_open(self, number: int, link: LinkId) -> None:
        """Send a set-up over the link that it wanted.  No-op for a set-up that is over."""
        relay = self._relays.get(number)
        if relay is None or relay.set_up is None or relay.ahead is not None:
            return
        if link == relay.before.link:
            self._refuse(number, RefusalWord.LOOP)
            return
        tether = TetherId(self._entropy(TETHER_ID_BYTES))
        relay.ahead = _Side(link, tether, self._channel_count, label_in=self._labels.take(link))
        self._commands.append(OpenTether(link, tether, self._channel_count))
        onward = Setup(relay.set_up.request_ahead, tether, self._channel_count, relay.ahead.label_in, relay.set_up.rest)
        self._send(link, onward)

    def link_failed(self, number: int, word: RefusalWord) -> None:
        """Refuse a set-up whose link cannot be had.  No-op for a set-up that is over."""
        relay = self._relays.get(number)
        if relay is not None and relay.set_up is not None and relay.ahead is None:
            self._refuse(number, word)

    def tether_up(self, link: LinkId, tether: TetherId) -> None:
        """Take note that a tether is open; no-op unless a set-up passed on here asked for it."""
        for number, relay in list(self._relays.items()):
            ahead = relay.ahead
            if relay.set_up is not None and ahead is not None and (ahead.link, ahead.tether) == (link, tether):
                relay.set_up.tether_up = True
                self._confirm_if_complete(number, relay)

    def tether_down(self, link: LinkId, tether: TetherId) -> None:
        """End the routes over a tether that closed."""
        for number, relay in list(self._relays.items()):
            sides = [relay.before] if relay.ahead is None else [relay.before, relay.ahead]
            if any((side.link, side.tether) == (link, tether) for side in sides):
                self._tear(number, b"")

    # ── what neighbours answer ──

    def receive_confirm(self, link: LinkId, confirm: Confirm) -> bool:
        """Take the next hop's confirmation; False if it is not of a set-up passed on here.

        It is sealed for the sender, under a key that relays do not have: only the sender can tell a forged one.
        """
        found = self._asked(link, confirm.request)
        if found is None:
            return False
        number, relay, set_up = found
        assert relay.ahead is not None
        if confirm.label == 0 or relay.ahead.label_out:
            raise RemoteProtocolError("malformed", "label 0, or confirmed before")
        relay.ahead.label_out = confirm.label
        set_up.sealed = confirm.sealed
        self._confirm_if_complete(number, relay)
        return True

    def _confirm_if_complete(self, number: int, relay: _Relay) -> None:
        set_up = relay.set_up
        if set_up is None or relay.ahead is None or not set_up.tether_up or not relay.ahead.label_out:
            return
        relay.before.label_in = self._labels.take(relay.before.link)
        relay.expires_at += relay.lifetime_s
        relay.set_up = None  # with the request ids, the next node, the onion and the route key
        self._events.append(RelayReady(number, relay.before.hop, relay.ahead.hop))
        confirm = Confirm(set_up.request_before, relay.before.label_in, set_up.sealed)
        self._send(relay.before.link, confirm)

    def receive_refuse(self, link: LinkId, refuse: Refuse) -> bool:
        """Pass the next hop's refusal on; False if it is not of a set-up passed on here."""
        found = self._asked(link, refuse.request)
        if found is None:
            return False
        number, relay, set_up = found
        if refuse.sealed:  # by a hop that opened its slot, for the sender: passed on unchanged
            self._send(relay.before.link, Refuse(set_up.request_before, refuse.sealed, b""))
            self._drop(number)
        else:
            self._refuse(number, NEXT + said_untrusted(refuse.plain).encode())
        return True

    def receive_teardown(self, link: LinkId, teardown: Teardown) -> bool:
        """Pass a teardown on; False if the label is not of a route through here."""
        for number, relay in self._relays.items():
            for side in (relay.before, relay.ahead):
                if side is not None and side.link == link and side.label_in == teardown.label and teardown.label:
                    self._tear(number, teardown.last, heard_from=side)
                    return True
        return False

    def _asked(self, link: LinkId, request: bytes) -> tuple[int, _Relay, _SetUp] | None:
        for number, relay in self._relays.items():
            set_up, ahead = relay.set_up, relay.ahead
            if set_up is None or ahead is None:
                continue
            if ahead.link == link and set_up.request_ahead == request:
                return number, relay, set_up
        return None

    # ── the end ──

    def link_down(self, link: LinkId, *, let_go: bool) -> None:
        """End every route over a link that closed.  let_go: the far end closed it in good order."""
        for number, relay in list(self._relays.items()):
            if relay.before.link == link or (relay.ahead is not None and relay.ahead.link == link):
                self._tear(number, b"", let_go=let_go)

    def _refuse(self, number: int, said: RefusalWord | bytes) -> None:
        relay = self._relays[number]
        assert relay.set_up is not None
        self._send(relay.before.link, refuse(relay.set_up.request_before, relay.set_up.route_key, said))
        self._drop(number)

    def _tear(self, number: int, last: bytes, heard_from: _Side | None = None, *, let_go: bool = False) -> None:
        """End a route, and tell each neighbour that knows a label of it, except the one that sent the teardown."""
        relay = self._relays[number]
        if relay.set_up is not None:
            self._refuse(number, RefusalWord.LINK_CLOSED if let_go else RefusalWord.LINK_DOWN)
            return
        for side in (relay.before, relay.ahead):
            if side is not None and side is not heard_from:
                self._send(side.link, Teardown(side.label_out, last))
        self._drop(number)

    def _drop(self, number: int) -> None:
        relay = self._relays.pop(number)
        for side in (relay.before, relay.ahead):
            if side is not None and side.label_in:
                self._labels.free(side.link, side.label_in)
        if relay.ahead is not None:
            if relay.set_up is not None and relay.ahead.label_out:  # the next hop has confirmed already
                self._send(relay.ahead.link, Teardown(relay.ahead.label_out, b""))
            self._commands.append(CloseTether(relay.ahead.link, relay.ahead.tether))
        if relay.set_up is None and relay.ahead is not None:
            self._events.append(RelayGone(number, relay.before.hop, relay.ahead.hop))
        else:
            self._events.append(RelayGone(number, None, None))

    # ── time and outputs ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min((relay.expires_at for relay in self._relays.values()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Give up set-ups the next hop did not answer, and routes that outlived their lifetime."""
        for number, relay in list(self._relays.items()):
            if relay.expires_at > now:
                continue
            if relay.set_up is not None:
                self._refuse(number, RefusalWord.TIMEOUT)
            else:
                self._tear(number, b"")

    def next_transmit(self) -> Transmit | None:
        """Return one link message, or None."""
        return self._transmits.popleft() if self._transmits else None

    def next_command(self) -> OpenTether | CloseTether | None:
        """Return one command for the carrier, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> RelayEvent | None:
        """Return one event, or None."""
        return self._events.popleft() if self._events else None

    def status(self) -> tuple[RelayStatus, ...]:
        """Return every confirmed route through here."""
        return tuple(
            RelayStatus(relay.before.status, relay.ahead.status, relay.expires_at)
            for relay in self._relays.values()
            if relay.set_up is None and relay.ahead is not None
        )

    def _send(self, link: LinkId, message: Message) -> None:
        self._transmits.append(Transmit(link, encode_message(message)))


def refuse(request: bytes, route_key: bytes, said: RefusalWord | bytes) -> Refuse:
    """Return a refusal that only the sender can read."""
    plain = said.encode("ascii") if isinstance(said, RefusalWord) else said
    return Refuse(request, box.seal_once(onion.refusal_key(route_key), plain), b"")
