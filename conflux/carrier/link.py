"""What every link has, whoever carries its messages: ICE, the DTLS handshake, and the way down from any point of it.

A link owns one task, run(), which is its life.  Everything that can end it resolves one future, the first reason wins,
and the task takes everything down in one place and reports Closed last.  What comes after the handshake is a
subclass's: rtc_link.py leaves it to aiortc, native_link.py to the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Generic, Protocol, TypeVar

from conflux.carrier import lean
from conflux.carrier.ice import CANDIDATE_COUNT_MAX, Ice, host_addresses
from conflux.carrier.interface import (
    CandidatesFound,
    CarrierEvent,
    Closed,
    Described,
    Description,
    Opened,
    TetherDown,
    TetherUp,
)
from conflux.carrier.server import IceServer
from conflux.carrier.tether import CHANNEL_COUNT_MAX, TETHER_COUNT_MAX, TETHER_LABEL, parse_protocol_untrusted
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, TetherId

lean.load()

from aiortc.rtcdtlstransport import (  # noqa: E402  # only findable now
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)

SCTP_PORT = 5000  # RFC 8831, section 6.2: any will do inside DTLS; what everybody uses
MESSAGE_BYTES_MAX = 65536
LIFETIME_MS_MIN = 250  # of a frame on a tether: long enough for one repair on a slow hop


class AnyTether(Protocol):
    """What a link needs to know of a tether."""

    @property
    def channels(self) -> Sequence[object]:
        """One place per channel, None where there is none yet."""

    def close(self) -> None:
        """Close every channel."""


T = TypeVar("T", bound=AnyTether)


class Link(ABC, Generic[T]):
    """One side of one link.  emit: gets every event of it."""

    def __init__(
        self,
        link: LinkId,
        *,
        initiator: bool,
        emit: Callable[[CarrierEvent], None],
        addresses: Callable[[], Sequence[str]] | None,
        excluded: Sequence[IPv4Network | IPv6Network],
        ice_servers: Sequence[IceServer],
        drop_counts: Counter[str],
    ) -> None:
        self.link = link
        self._emit = emit
        self._ice_servers = ice_servers
        self._drop_counts = drop_counts
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._remote: asyncio.Future[Description] = self._loop.create_future()
        self._initiator = initiator
        self._is_open = False
        self._tethers: dict[TetherId, T] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ice = Ice(
            controlling=initiator,
            addresses=addresses() if addresses is not None else host_addresses(excluded),
            refused=excluded,
            drop_counts=drop_counts,
            lost=self.end,
        )

    # ── what a subclass does ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def _handshake(self) -> RTCDtlsTransport:
        """DTLS over self._ice."""

    @abstractmethod
    async def _carry(self, remote: Description) -> None:
        """Start what comes after the handshake, which is done; _opened() follows once conflux.link.1 is open."""

    @abstractmethod
    async def _stop_carrying(self) -> None:
        """Say goodbye in SCTP, if it ever started; DTLS and the sockets go afterwards."""

    @abstractmethod
    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""

    @property
    @abstractmethod
    def rtt_s(self) -> float | None:
        """The hop's smoothed round-trip time, or None before the first measurement."""

    def measured(self) -> dict[str, Any]:
        """Return what is known of the hop, for people."""
        return {"rtt_ms": None if self.rtt_s is None else round(self.rtt_s * 1e3, 3)}

    @abstractmethod
    def _new_tether(self, tether_id: TetherId, channel_count: int) -> T:
        """Make a tether without channels."""

    @abstractmethod
    def _open_channels(self, tether: T, lifetime_ms: int) -> None:
        """Open every channel of a new tether."""

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Live until ended; report Closed last."""
        try:
            # A millisecond, not to be cut short: a socket cancelled in the making would have no owner to close it.
            await self._ice.gather_candidates()
            establishing = self._spawn(self._establish(), "establish")
            await asyncio.wait((establishing, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not self._over.done():
                await establishing
                await self._over
        except RemoteProtocolError as error:
            self.end(error.reason)
        except (OSError, ValueError) as error:
            self.end(f"failed: {type(error).__name__}")
        finally:
            self.end("failed")  # only if nothing else was to blame
            try:
                await self._take_down()
            finally:
                self._emit(Closed(self.link, self._over.result()))

    def end(self, reason: str) -> None:
        """Have the link taken down, unless it is already on its way."""
        if not self._over.done():
            self._over.set_result(reason)

    def connect(self, remote: Description) -> None:
        """Go on with the far side's description."""
        if not self._remote.done():
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
        await self._ice.reach(remote.ice_ufrag, remote.ice_pwd, remote.candidates)
        if looking is not None:  # a silent server's ICMP errors would eat good sends, and we have a way
            looking.cancel()
        fingerprint = remote.dtls_sha256.hex(":").upper()
        await self._handshake.start(RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", fingerprint)]))
        if self._handshake.state != "connected":
            raise RemoteProtocolError("dtls", "handshake failed or the certificate is another one")
        await self._carry(remote)

    async def _take_down(self) -> None:
        """Say goodbye twice, as SCTP and as DTLS, each in a datagram of its own; then close the sockets."""
        if self._handshake.state == "connecting":
            # Its wait_for() may swallow the cancellation below, if a datagram comes in the same turn of the loop.
            self._ice.abandon()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tether in self._tethers.values():
            tether.close()
        self._tethers.clear()
        async with contextlib.AsyncExitStack() as last_first:  # each goes, whatever becomes of the one before
            last_first.push_async_callback(self._ice.close)
            last_first.push_async_callback(self._handshake.stop)
            last_first.push_async_callback(self._stop_carrying)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"link-{self.link}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _opened(self) -> None:
        self._is_open = True
        self._emit(Opened(self.link))

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
            and 0 < channel_count <= CHANNEL_COUNT_MAX
            and len(self._tethers) < TETHER_COUNT_MAX
            and tether_id not in self._tethers
        ):
            self._drop_counts["tether-unopenable"] += 1
            self._emit(TetherDown(self.link, tether_id))
            return
        tether = self._tethers[tether_id] = self._new_tether(tether_id, channel_count)
        self._open_channels(tether, self._lifetime_ms)

    def close_tether(self, tether_id: TetherId) -> None:
        """Close a tether, whoever opened it; no event follows here.  No-op if unknown."""
        tether = self._tethers.pop(tether_id, None)
        if tether is not None:
            tether.close()

    def tether(self, tether_id: TetherId) -> T | None:
        """Return the tether, or None."""
        return self._tethers.get(tether_id)

    @property
    def _lifetime_ms(self) -> int:
        """How long a frame may wait on a tether that opens now: DCEP has 32 bits for it, aiortc 16."""
        return min(max(LIFETIME_MS_MIN, round(4000 * (self.rtt_s or 0))), 65535)

    def _place_untrusted(self, label: str, protocol: str) -> tuple[T, int] | None:
        """Return the tether and the place in it of a channel that the far side opened, or None if there is none."""
        named = parse_protocol_untrusted(protocol) if label == TETHER_LABEL else None
        if named is None or not self._is_open:
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
        """The far side closed the tether, or one of its channels."""
        self._tethers.pop(tether_id, None)
        if not self._over.done():
            self._emit(TetherDown(self.link, tether_id))
