"""What both kinds of link share: ICE, the DTLS handshake, whose data channel is whose, and the way down.

A link owns one task, run(), which is its life.  Everything that ends a link resolves one future, and the first reason
counts; the task then takes everything down in one place and reports Closed last.  A subclass has what comes after the
handshake: rtc/link.py leaves it to aiortc, native/link.py to the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

from conflux.carrier import lean
from conflux.carrier.context import LinkContext
from conflux.carrier.drop import Drop
from conflux.carrier.ice.agent import Ice
from conflux.carrier.ice.datagrams import DatagramTraffic
from conflux.carrier.interface import (
    CANDIDATE_COUNT_MAX,
    LIFETIME_MS_MAX,
    LIFETIME_MS_MIN,
    MESSAGE_BYTES_MAX,
    SCTP_PORT,
    TETHER_CHANNEL_COUNT_MAX,
    TETHER_COUNT_MAX,
    CandidatesFound,
    CarrierEnd,
    Closed,
    Described,
    Description,
    LinkKeys,
    Measured,
    Opened,
    TetherDown,
    TetherUp,
)
from conflux.carrier.tether import LINK_LABEL, TETHER_LABEL, parse_protocol_untrusted
from conflux.errors import LocalProtocolError, RemoteProtocolError, words_of
from conflux.host.underlay import is_here
from conflux.ids import TetherId

lean.load()

from aiortc.rtcdtlstransport import (  # noqa: E402  # only findable now
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)

log = logging.getLogger(__name__)


# Channels that may wait for conflux.link.1: two tethers as we open them and two of a peer that opens twice as many.
EARLY_OFFER_COUNT_MAX = 24


class AnyTether(Protocol):
    """What a link needs of a tether."""

    @property
    def channels(self) -> Sequence[object]:
        """One place per channel, None where there is no channel yet."""

    def close(self) -> None:
        """Close every channel."""


T = TypeVar("T", bound=AnyTether)
C = TypeVar("C")  # a data channel


class Link(ABC, Generic[T, C]):
    """One side of one link."""

    def __init__(self, context: LinkContext) -> None:
        self.link = context.link
        self._emit = context.emit
        self._ice_servers = context.ice_servers
        self._drop_counts = context.drop_counts
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Closed] = self._loop.create_future()
        self._remote: asyncio.Future[Description] = self._loop.create_future()
        self._keys: LinkKeys | None = None  # of a link without a handshake, until what follows has them
        self._initiator = context.initiator
        self._is_open = False
        self._control: C | None = None  # conflux.link.1
        self._tethers: dict[TetherId, T] = {}
        self._offers: dict[C, tuple[str, str]] = {}  # that wait for conflux.link.1: streams overtake one another
        self._tasks: set[asyncio.Task[None]] = set()
        self._ice = Ice(
            controlling=context.initiator,
            addresses=context.addresses(),
            refused=context.excluded,
            drop_counts=context.drop_counts,
            lost=self.end,
        )

    # ── what a subclass does ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _sctp_start(self) -> bytes | None:
        """With what this side's SCTP association begins, if it can begin open."""
        return None

    @property
    def _takes_keys(self) -> bool:
        """Whether keys that both ends have may stand in for the handshake."""
        return False

    @property
    def _secures_early(self) -> bool:
        """Whether DTLS begins beside ICE."""
        return False

    @property
    @abstractmethod
    def _handshake(self) -> RTCDtlsTransport:
        """DTLS over self._ice."""

    @abstractmethod
    async def _carry(self, remote: Description) -> None:
        """Start what comes after the handshake, which is done; _opened() follows once conflux.link.1 is open.

        With self._keys, which a carrier that takes none is never given, there was no handshake.
        """

    @abstractmethod
    async def _stop_carrying(self) -> None:
        """Say goodbye in SCTP, if it ever started; DTLS and the sockets go afterwards."""

    @abstractmethod
    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""

    @abstractmethod
    def measured(self) -> Measured | None:
        """Return what is known of the hop; None if nothing is."""

    @abstractmethod
    def _new_tether(self, tether_id: TetherId, channel_count: int) -> T:
        """Make a tether without channels."""

    @abstractmethod
    def _open_channels(self, tether: T, lifetime_ms: int) -> None:
        """Open every channel of a new tether."""

    @abstractmethod
    def _take_control(self, channel: C) -> None:
        """Take the channel that is conflux.link.1; _opened() follows once it is open."""

    @abstractmethod
    def _take_channel(self, tether: T, index: int, channel: C) -> None:
        """Take a channel of a tether that the far side opens."""

    @abstractmethod
    def _refuse_channel(self, channel: C) -> None:
        """Close a channel that the far side opens."""

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Live until ended; report Closed last."""
        try:
            # It takes a millisecond and is not cancelled: a socket that is being made has no owner to close it.
            await self._ice.gather_candidates()
            if not self._ice.local_candidates and not self._ice_servers:
                self.end(CarrierEnd.NO_ADDRESS)
                return
            establishing = self._spawn(self._establish(), "establish")
            await asyncio.wait((establishing, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not self._over.done():
                await establishing
                await self._over
        except RemoteProtocolError as error:
            self.end(CarrierEnd(error.reason))
        except (OSError, ValueError) as error:
            self.end(CarrierEnd.FAILED, words_of(error))
        finally:
            self.end(CarrierEnd.FAILED)  # only if no reason was given before
            try:
                await self._take_down()
            finally:
                self._emit(self._over.result())

    def end(self, reason: CarrierEnd, error: str | None = None) -> None:
        """Have the link taken down.  The first reason counts; no-op afterwards."""
        if not self._over.done():
            self._over.set_result(Closed(self.link, reason, error))

    def address_changed(self) -> None:
        """End if this host no longer has the address that datagrams leave from: no answer would find it."""
        address = self._ice.sends_from()
        if address is not None and not is_here(address):
            self.end(CarrierEnd.ADDRESS_GONE)

    def connect(self, remote: Description, keys: LinkKeys | None = None) -> None:
        """Go on with the far side's description.  keys: both have them, so there is no handshake.

        Raises LocalProtocolError for keys that this kind of link does not take.
        """
        if keys is not None and not self._takes_keys:
            raise LocalProtocolError("a link of this kind takes no keys")
        if not self._remote.done():
            self._keys = keys
            self._remote.set_result(remote)

    async def _establish(self) -> None:
        candidates = tuple(candidate.to_sdp() for candidate in self._ice.local_candidates)
        fingerprint = next(
            print_.value
            for print_ in self._handshake.getLocalParameters().fingerprints
            if print_.algorithm == "sha-256"
        )
        self._emit(
            Described(
                self.link,
                Description(
                    ice_ufrag=self._ice.local_username,
                    ice_pwd=self._ice.local_password,
                    dtls_sha256=bytes.fromhex(fingerprint.replace(":", "")),
                    sctp_port=SCTP_PORT,
                    message_bytes_max=MESSAGE_BYTES_MAX,
                    candidates=candidates[:CANDIDATE_COUNT_MAX],
                    sctp_start=self._sctp_start,
                ),
            )
        )
        looking = None
        if self._ice_servers:
            looking = self._spawn(
                self._ice.find_more(
                    self._ice_servers,
                    lambda found: self._emit(CandidatesFound(self.link, (found.to_sdp(),))),
                ),
                "candidates",
            )
        remote = await self._remote
        needs_handshake = self._keys is None
        fingerprint = remote.dtls_sha256.hex(":").upper()
        expected = RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", fingerprint)])
        began = time.monotonic()
        securing = None
        if self._secures_early and needs_handshake:
            securing = self._spawn(self._handshake.start(expected), "dtls")
        await self._ice.reach(remote.ice_ufrag, remote.ice_pwd, remote.candidates)
        reached = time.monotonic()
        if looking is not None:  # a pair works already, and a dead server's ICMP errors would make good sends fail
            looking.cancel()
        if needs_handshake:
            await (self._handshake.start(expected) if securing is None else securing)
        took_ms = [1e3 * (at - began) for at in (reached, time.monotonic())]
        log.debug("link %d: ICE after %.1f ms, DTLS after %.1f ms", self.link, *took_ms)
        if needs_handshake and self._handshake.state != "connected":
            raise RemoteProtocolError(CarrierEnd.DTLS, "handshake failed or the certificate is another one")
        await self._carry(remote)

    async def _take_down(self) -> None:
        """Say goodbye in SCTP and in DTLS, each in a datagram of its own; then close the sockets."""
        if self._handshake.state == "connecting":
            # aiortc's wait_for() may swallow the cancellation below, if a datagram comes in the same turn of the loop.
            self._ice.abandon()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tether in self._tethers.values():
            tether.close()
        self._tethers.clear()
        async with contextlib.AsyncExitStack() as last_first:  # each runs, even if the one before raised
            last_first.push_async_callback(self._ice.close)
            last_first.push_async_callback(self._handshake.stop)
            last_first.push_async_callback(self._stop_carrying)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"link-{self.link}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def traffic(self) -> DatagramTraffic:
        """What passed on the link's sockets and was not taken yet."""
        return self._ice.traffic

    def count(self) -> None:
        """Have the traffic complete, as of now."""

    def _opened(self) -> None:
        self.count()
        self._is_open = self.traffic.is_open = True
        self._emit(Opened(self.link))
        offers, self._offers = self._offers, {}
        for channel, (label, protocol) in offers.items():
            self._offered_untrusted(channel, label, protocol)

    def add_candidates(self, candidates: tuple[str, ...]) -> None:
        """Try further addresses of the far side."""
        self._spawn(self._ice.add_remote(candidates), "add-candidates")

    @property
    def socket_count(self) -> int:
        """How many UDP sockets the link holds."""
        return self._ice.socket_count

    # ── tethers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_tether(self, tether_id: TetherId, channel_count: int) -> None:
        """Open a tether; TetherUp follows, or TetherDown if it cannot be."""
        if not (
            self._is_open
            and 0 < channel_count <= TETHER_CHANNEL_COUNT_MAX
            and len(self._tethers) < TETHER_COUNT_MAX
            and tether_id not in self._tethers
        ):
            self._drop_counts[Drop.TETHER_UNOPENABLE] += 1
            self._emit(TetherDown(self.link, tether_id))
            return
        tether = self._tethers[tether_id] = self._new_tether(tether_id, channel_count)
        self._open_channels(tether, self._lifetime_ms)

    def close_tether(self, tether_id: TetherId) -> None:
        """Close a tether that either side opened; no event follows here.  No-op if unknown."""
        tether = self._tethers.pop(tether_id, None)
        if tether is not None:
            tether.close()

    def tether(self, tether_id: TetherId) -> T | None:
        """Return the tether, or None."""
        return self._tethers.get(tether_id)

    @property
    def _lifetime_ms(self) -> int:
        """How long a frame may wait on a tether that opens now: 4 RTT, within bounds."""
        measured = self.measured()
        rtt_s = None if measured is None else measured.rtt_s
        return min(max(LIFETIME_MS_MIN, round(4000 * (rtt_s or 0))), LIFETIME_MS_MAX)

    def _offered_untrusted(self, channel: C, label: str, protocol: str) -> None:
        """Take a channel that the far side opens if its name is one of ours and there is room; else close it."""
        if label == LINK_LABEL and self._control is None and not self._initiator:
            self._take_control(channel)
            return
        if not self._is_open and len(self._offers) < EARLY_OFFER_COUNT_MAX:
            self._offers[channel] = label, protocol
            return
        place = self._place_untrusted(label, protocol)
        if place is None:
            self._drop_counts[Drop.CHANNEL_REFUSED] += 1
            self._refuse_channel(channel)
            return
        self._take_channel(*place, channel)

    def _place_untrusted(self, label: str, protocol: str) -> tuple[T, int] | None:
        """Return the tether and the index of a channel that the far side opens; None if there is no such place."""
        named = parse_protocol_untrusted(protocol) if label == TETHER_LABEL else None
        if named is None or not self._is_open:  # not open: too many offers wait already
            return None
        tether_id, index, count = named
        tether = self._tethers.get(tether_id)
        if tether is None and len(self._tethers) < TETHER_COUNT_MAX:
            tether = self._tethers[tether_id] = self._new_tether(tether_id, count)
        if tether is None or len(tether.channels) != count or tether.channels[index] is not None:
            return None
        return tether, index

    def _tether_up(self, tether_id: TetherId) -> None:
        self._emit(TetherUp(self.link, tether_id))

    def _tether_down(self, tether_id: TetherId) -> None:
        """Report that the far side closed the tether or one of its channels, or that it could not be opened."""
        self._tethers.pop(tether_id, None)
        if not self._over.done():
            self._emit(TetherDown(self.link, tether_id))
