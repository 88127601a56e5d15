"""One link over aiortc: ICE, then DTLS, then SCTP, then conflux.link.1; and the way down from any point of it.

A link owns one task, run(), which is its life.  Everything that can end it resolves one future, the first reason wins,
and the task takes everything down in one place and reports Closed last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any, cast

from conflux.carrier import lean
from conflux.carrier.ice import CANDIDATE_COUNT_MAX, Ice, host_addresses
from conflux.carrier.interface import (
    CandidatesFound,
    CarrierEvent,
    Closed,
    ControlArrived,
    Described,
    Description,
    Opened,
    TetherDown,
    TetherUp,
)
from conflux.carrier.server import IceServer
from conflux.carrier.tether import (
    CHANNEL_COUNT_MAX,
    LINK_LABEL,
    TETHER_COUNT_MAX,
    TETHER_LABEL,
    Tether,
    channel_protocol,
    parse_protocol_untrusted,
)
from conflux.datapath.interface import OutFrame
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, TetherId

lean.load()

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters  # noqa: E402  # only findable now
from aiortc.rtcdtlstransport import (  # noqa: E402
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)
from aiortc.rtcicetransport import RTCIceTransport  # noqa: E402
from aiortc.rtcsctptransport import RTCSctpCapabilities  # noqa: E402

from conflux.carrier.association import Association  # noqa: E402

SCTP_PORT = 5000  # RFC 8831, section 6.2: any will do inside DTLS; what everybody uses
MESSAGE_BYTES_MAX = 65536
LIFETIME_MS_MIN = 250  # of a frame on a tether: long enough for one repair on a slow hop
BUFFERED_BYTES_MAX = 4 << 20  # per tether; beyond it somebody writes without draining


class RtcLink:
    """One side of one link.

    emit: gets every event of the link.  frame: gets every message that comes on a tether.
    """

    def __init__(
        self,
        link: LinkId,
        *,
        initiator: bool,
        emit: Callable[[CarrierEvent], None],
        frame: Callable[[LinkId, bytes, int], None],
        addresses: Callable[[], Sequence[str]] | None,
        excluded: Sequence[IPv4Network | IPv6Network],
        ice_servers: Sequence[IceServer],
        drop_counts: Counter[str],
    ) -> None:
        self.link = link
        self._emit = emit
        self._frame = frame
        self._ice_servers = ice_servers
        self._drop_counts = drop_counts
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._remote: asyncio.Future[Description] = self._loop.create_future()
        self._control: RTCDataChannel | None = None
        self._initiator = initiator
        self._is_open = False
        self._tethers: dict[TetherId, Tether] = {}
        self._buffered_bytes_most = 0  # a bound on what waits: as last summed up, and what was written since
        self._tasks: set[asyncio.Task[None]] = set()
        self._ice = Ice(
            controlling=initiator,
            addresses=addresses() if addresses is not None else host_addresses(excluded),
            refused=excluded,
            drop_counts=drop_counts,
            lost=self.end,
        )
        # One certificate per link, so that two links of a node do not look alike to who watches; it costs 0.2 ms.
        self._dtls = RTCDtlsTransport(cast(RTCIceTransport, self._ice), [RTCCertificate.generateCertificate()])
        self._dtls.on("statechange", self._dtls_changed)
        self._sctp = Association(
            self._dtls, SCTP_PORT, drop_counts=drop_counts, broken=lambda: self.end("sctp-malformed")
        )
        self._sctp.on("datachannel", self._channel_untrusted)
        self._sctp.on("error", self._report)

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
            print_.value for print_ in self._dtls.getLocalParameters().fingerprints if print_.algorithm == "sha-256"
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
        await self._dtls.start(RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", fingerprint)]))
        if self._dtls.state != "connected":
            raise RemoteProtocolError("dtls", "handshake failed or the certificate is another one")
        if self._initiator:
            self._take_control(RTCDataChannel(self._sctp, RTCDataChannelParameters(label=LINK_LABEL)))
        self._sctp.fit(self._ice.receive_buffer_bytes)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=remote.message_bytes_max), remote.sctp_port)

    async def _take_down(self) -> None:
        """Say goodbye twice, as SCTP and as DTLS, each in a datagram of its own; then close the sockets."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tether in self._tethers.values():
            tether.close()
        self._tethers.clear()
        async with contextlib.AsyncExitStack() as last_first:  # each goes, whatever becomes of the one before
            last_first.push_async_callback(self._ice.close)
            last_first.push_async_callback(self._dtls.stop)
            last_first.push_async_callback(self._sctp.stop)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"link-{self.link}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _dtls_changed(self) -> None:
        if self._dtls.state == "closed":
            self.end("peer")

    def _report(self, error: Exception) -> None:
        """Something of ours raised inside a callback of aiortc; the link is not to blame."""
        self._loop.call_exception_handler({"message": f"carrier callback of link {self.link}", "exception": error})

    # ── conflux.link.1 ───────────────────────────────────────────────────────────────────────────────────────────────

    def _take_control(self, channel: RTCDataChannel) -> None:
        self._control = channel
        channel.on("message", self._control_message_untrusted)
        channel.on("close", lambda: self.end("peer"))
        channel.on("error", self._report)
        if channel.readyState == "open":
            self._opened()
        else:
            channel.on("open", self._opened)

    def _opened(self) -> None:
        self._is_open = True
        self._emit(Opened(self.link))

    def _control_message_untrusted(self, data: bytes | str) -> None:
        if self._check_untrusted(data) and isinstance(data, bytes):
            self._emit(ControlArrived(self.link, data))

    def _check_untrusted(self, data: bytes | str) -> bool:
        if isinstance(data, str):
            self._drop_counts["text-message"] += 1
        elif len(data) > MESSAGE_BYTES_MAX:
            self._drop_counts["oversized"] += 1
        else:
            return not self._over.done()
        return False

    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""
        if self._control is None or self._control.readyState != "open" or len(data) > MESSAGE_BYTES_MAX:
            self._drop_counts["control-unsendable"] += 1
            return
        self._control.send(data)

    @property
    def socket_count(self) -> int:
        """How many UDP sockets the link holds."""
        return self._ice.socket_count

    # ── tethers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def rtt_s(self) -> float | None:
        """The hop's smoothed round-trip time, or None before the first measurement."""
        return self._sctp.rtt_s

    def add_candidates(self, candidates: tuple[str, ...]) -> None:
        """Try further addresses of the far side."""
        self._spawn(self._ice.add_remote(candidates), "add-candidates")

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
        tether = self._new_tether(tether_id, channel_count)
        lifetime_ms = max(LIFETIME_MS_MIN, round(4000 * (self.rtt_s or 0)))
        for index in range(channel_count):
            parameters = RTCDataChannelParameters(
                label=TETHER_LABEL,
                protocol=channel_protocol(tether_id, index, channel_count),
                ordered=False,
                maxPacketLifeTime=min(lifetime_ms, 65535),
            )
            self._add_channel(tether, index, RTCDataChannel(self._sctp, parameters))

    def close_tether(self, tether_id: TetherId) -> None:
        """Close a tether, whoever opened it; no event follows here.  No-op if unknown."""
        tether = self._tethers.pop(tether_id, None)
        if tether is not None:
            tether.close()

    def write(self, frame: OutFrame) -> None:
        """Queue one frame; a tether that is gone or overfull is a counted drop."""
        tether = self._tethers.get(frame.tether)
        channel = (
            tether.channels[frame.channel] if tether is not None and frame.channel < len(tether.channels) else None
        )
        if tether is None or channel is None or channel.readyState != "open" or self._over.done():
            self._drop_counts["no-tether"] += 1
        elif len(frame.data) > MESSAGE_BYTES_MAX or tether.buffered_bytes > BUFFERED_BYTES_MAX:
            self._drop_counts["carrier-full"] += 1
        else:
            channel.send(frame.data)
            self._buffered_bytes_most += len(frame.data)

    def tether(self, tether_id: TetherId) -> Tether | None:
        """Return the tether, or None."""
        return self._tethers.get(tether_id)

    async def drain(self, bytes_max: int) -> None:
        """Return when at most bytes_max wait to be sent on all tethers together, or when the link is over."""
        while not self.has_room(bytes_max):
            fullest = max(self._tethers.values(), key=lambda tether: tether.buffered_bytes)
            await fullest.drain(bytes_max // len(self._tethers))

    def has_room(self, bytes_max: int) -> bool:
        """Say whether at most bytes_max wait on all tethers together, or the link is over."""
        if self._buffered_bytes_most > bytes_max:
            self._buffered_bytes_most = sum(tether.buffered_bytes for tether in self._tethers.values())
        return self._over.done() or self._buffered_bytes_most <= bytes_max

    def _new_tether(self, tether_id: TetherId, channel_count: int) -> Tether:
        def down() -> None:
            self._tethers.pop(tether_id, None)
            if not self._over.done():
                self._emit(TetherDown(self.link, tether_id))

        tether = Tether(tether_id, channel_count, lambda: self._emit(TetherUp(self.link, tether_id)), down)
        self._tethers[tether_id] = tether
        return tether

    def _add_channel(self, tether: Tether, index: int, channel: RTCDataChannel) -> None:
        channel.on("message", partial(self._frame_untrusted, index))
        channel.on("error", self._report)
        tether.add(index, channel)

    def _frame_untrusted(self, index: int, data: bytes | str) -> None:
        if self._check_untrusted(data) and isinstance(data, bytes):
            self._frame(self.link, data, index)

    def _channel_untrusted(self, channel: RTCDataChannel) -> None:
        """The far side opened a channel: take it if it is one we know and there is room, or close it."""
        if channel.label == LINK_LABEL and self._control is None and not self._initiator:
            self._take_control(channel)
            return
        named = parse_protocol_untrusted(channel.protocol) if channel.label == TETHER_LABEL else None
        if named is None or not self._is_open:
            self._drop_counts["channel-refused"] += 1
            channel.close()
            return
        tether_id, index, count = named
        tether = self._tethers.get(tether_id)
        if tether is None and len(self._tethers) < TETHER_COUNT_MAX:
            tether = self._new_tether(tether_id, count)
        if tether is None or len(tether.channels) != count or tether.channels[index] is not None:
            self._drop_counts["channel-refused"] += 1
            channel.close()
            return
        self._add_channel(tether, index, channel)
