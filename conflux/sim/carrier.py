"""The simulated carrier of one host: stands in for ICE, DTLS and SCTP.

    Describe ─► Describe on the far host ─► Connect on both ─► Opened on both ─► tethers, control messages, frames

Links are paired by the tokens in their descriptions.  Control messages are reliable and in order; a frame may be lost,
repeated and delayed, as the weather says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Protocol

from conflux.carrier.interface import (
    MESSAGE_BYTES_MAX,
    SCTP_PORT,
    CarrierEnd,
    CarrierEvent,
    Closed,
    CloseTether,
    Command,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    LinkKeys,
    Opened,
    OpenTether,
    OutFrame,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.ids import LinkId, NodeId, TetherId
from conflux.sim.flights import Weather

DESCRIBE_S = 0.005  # what a real carrier takes to gather candidates
OPEN_S = 0.040  # ICE, DTLS and SCTP, beyond two round trips
CONSENT_S = 30.0  # after which a real carrier finds out that no one answers its consent checks


class Ground(Protocol):
    """What a carrier needs of its world."""

    now: float
    rng: random.Random
    endpoints: dict[str, Endpoint]  # of all hosts, by token
    secured: Counter[Secured]  # how many links, by what secures them

    @property
    def weather(self) -> Weather:
        """The weather at this moment."""

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something later."""

    def passes(self, a: NodeId, b: NodeId) -> bool:
        """Say whether packets get from one host to the other."""

    def open_s(self, a: NodeId, b: NodeId) -> float:
        """Return what a link between two hosts takes to open, beyond two round trips."""


class Secured(StrEnum):
    """By what a link is secured."""

    HANDSHAKE = "handshake"
    KEYS = "keys"  # that both ends were given
    DIFFERENTLY = "differently"  # it never opens


@dataclass
class Endpoint:
    """One end of a link."""

    carrier: Carrier
    link: LinkId
    token: str
    far_token: str | None = None
    keys: LinkKeys | None = None
    open: bool = False
    arrives_at: float = 0.0  # of the newest reliable message: later ones do not overtake it
    opening: dict[TetherId, float] = field(default_factory=dict)  # tethers made here, and when each is up

    def secured_with(self, far: Endpoint) -> Secured:
        """Return by what the two ends secure their link."""
        if self.keys is None and far.keys is None:
            return Secured.HANDSHAKE
        if self.keys is None or far.keys is None:
            return Secured.DIFFERENTLY
        out, in_ = (self.keys.key_out, self.keys.iv_out), (self.keys.key_in, self.keys.iv_in)
        same = (far.keys.key_in, far.keys.iv_in) == out and (far.keys.key_out, far.keys.iv_out) == in_
        return Secured.KEYS if same and self.keys.aead == far.keys.aead else Secured.DIFFERENTLY


class Carrier:
    """The links of one host.  event(delay_s, event) and frame(link, data, channel) take what comes of them."""

    def __init__(
        self,
        ground: Ground,
        node: NodeId,
        name: str,
        *,
        event: Callable[[float, CarrierEvent], None],
        frame: Callable[[LinkId, bytes, int], None],
    ) -> None:
        self.node = node
        self.endpoints: dict[LinkId, Endpoint] = {}
        self._ground = ground
        self._name = name
        self._event = event
        self._frame = frame

    def perform(self, command: Command) -> None:
        """Do what a command asks for."""
        endpoint = self.endpoints.get(command.link)
        match command:
            case Describe(link=link):
                token = f"{self._name}.{link}.{self._ground.rng.randrange(2**32)}"
                self.endpoints[link] = self._ground.endpoints[token] = Endpoint(self, link, token)
                self._event(
                    DESCRIBE_S, Described(link, Description(token, "pwd", bytes(32), SCTP_PORT, MESSAGE_BYTES_MAX, ()))
                )
            case Connect(remote=remote, keys=keys) if endpoint is not None:
                endpoint.far_token, endpoint.keys = remote.ice_ufrag, keys
                self._meet(endpoint)
            case Disconnect() if endpoint is not None:
                self.shut(endpoint)
            case SendControl(data=data):
                self._to_far(endpoint, lambda far: ControlArrived(far.link, data))
            case OpenTether(link=link, tether=tether) if endpoint is not None and endpoint.open:
                self._to_far(endpoint, lambda far: TetherUp(far.link, tether))
                up_s = 2 * self._ground.weather.delay_s
                endpoint.opening[tether] = self._ground.now + up_s
                self._event(up_s, TetherUp(link, tether))
            case CloseTether(tether=tether) if endpoint is not None:
                endpoint.opening.pop(tether, None)
                self._to_far(endpoint, lambda far: TetherDown(far.link, tether))

    def send(self, frame: OutFrame) -> None:
        """Send a frame."""
        ground, weather = self._ground, self._ground.weather
        endpoint = self.endpoints.get(frame.link)
        far = self._reached(endpoint)
        if endpoint is None or far is None:
            return
        is_behind = endpoint.opening.get(frame.tether, 0.0) > ground.now  # what opens the tether has just left
        copy_count = 1 + (ground.rng.random() < weather.frame_repeat)
        for _ in range(copy_count):
            if ground.rng.random() >= weather.frame_loss:
                delay_s = weather.latency_s(ground.rng)
                if is_behind:
                    delay_s = max(delay_s, endpoint.arrives_at - ground.now)
                ground.at(delay_s, lambda: far.carrier._take(far.link, frame.data, frame.channel))

    def shut(self, endpoint: Endpoint) -> None:
        """Close a link; the far end hears of it."""
        far = self._reached(endpoint)
        self._forget(endpoint)
        self._event(0.0, Closed(endpoint.link, CarrierEnd.ASKED))
        if far is not None:
            far.carrier._forget(far)
            far.carrier._event(self._ground.weather.latency_s(self._ground.rng), Closed(far.link, CarrierEnd.PEER))

    def die(self) -> None:
        """Lose every link with the process; each far carrier notices when its consent checks fail."""
        for endpoint in list(self.endpoints.values()):
            far = self._far(endpoint)
            self._forget(endpoint)
            if far is not None:
                self._ground.at(CONSENT_S, partial(far.carrier._lose, far))

    def cut(self, node: NodeId) -> None:
        """Notice later that nothing passes between this host and another, if that is still so."""
        for endpoint in list(self.endpoints.values()):
            far = self._ground.endpoints.get(endpoint.far_token or "")
            if far is not None and far.carrier.node == node:
                self._ground.at(CONSENT_S, partial(self._check_consent, endpoint, node))

    def _check_consent(self, endpoint: Endpoint, node: NodeId) -> None:
        if not self._ground.passes(self.node, node):
            self._lose(endpoint)

    def _lose(self, endpoint: Endpoint) -> None:
        """Close a link whose far end does not answer the carrier's checks."""
        if self.endpoints.get(endpoint.link) is endpoint:
            self._forget(endpoint)
            self._event(0.0, Closed(endpoint.link, CarrierEnd.TIMEOUT))

    def _forget(self, endpoint: Endpoint) -> None:
        self.endpoints.pop(endpoint.link, None)
        self._ground.endpoints.pop(endpoint.token, None)

    def _meet(self, endpoint: Endpoint) -> None:
        far = self._reached(endpoint)
        if far is None:
            return
        secured = endpoint.secured_with(far)
        self._ground.secured[secured] += 1
        if secured is Secured.DIFFERENTLY:
            return  # neither opens a record of the other
        open_s = self._ground.open_s(self.node, far.carrier.node)
        for end in (endpoint, far):
            end.open = True
            end.carrier._event(open_s + 2 * self._ground.weather.delay_s, Opened(end.link))

    def _to_far(self, endpoint: Endpoint | None, make: Callable[[Endpoint], CarrierEvent]) -> None:
        """Send reliably and in order, as long as both ends live."""
        far = self._reached(endpoint)
        if endpoint is None or far is None or not endpoint.open:
            return
        ground = self._ground
        endpoint.arrives_at = max(endpoint.arrives_at, ground.now + ground.weather.latency_s(ground.rng))
        far.carrier._event(endpoint.arrives_at - ground.now, make(far))

    def _far(self, endpoint: Endpoint) -> Endpoint | None:
        far = self._ground.endpoints.get(endpoint.far_token or "")
        return far if far is not None and far.far_token == endpoint.token else None

    def _reached(self, endpoint: Endpoint | None) -> Endpoint | None:
        """Return the far end, if packets get there."""
        far = None if endpoint is None else self._far(endpoint)
        return far if far is not None and self._ground.passes(self.node, far.carrier.node) else None

    def _take(self, link: LinkId, data: bytes, channel: int) -> None:
        if link in self.endpoints:
            self._frame(link, data, channel)
