"""ICE for one link (RFC 8445): aioice's agent, made quick to connect, hard to crash and quick to notice a dead peer.

What is ours and why:
- Host candidates come from a list the caller chose; what STUN and TURN find follows later, so no offer waits for it.
- A link goes on the moment a pair is nominated.  aioice's own connect() returns up to 20 ms later, at its next pacing
  tick, and goes on in the background here.
- Datagrams are sorted by their first byte (RFC 7983) before anything parses them; what raises in a STUN parser is a
  counted drop.
- Both sides choose the same of several nominated pairs: the one of the highest priority, not the last that answered.
- The kernel is asked for ICMP errors on the nominated pair.  An error alone proves nothing (anybody can forge one), so
  it starts a few quick connectivity checks, and only their silence ends the link: a killed peer is noticed in well
  under a second of traffic, where consent (RFC 7675) takes half a minute.

Offers to RTCDtlsTransport what it uses of an RTCIceTransport: role, state, _send, _recv.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import select
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from conflux.carrier import lean
from conflux.carrier.datagrams import DATAGRAM_BYTES_MAX, READ_COUNT_MAX, DatagramTransport, Watch
from conflux.carrier.server import IceServer
from conflux.errors import RemoteProtocolError

lean.load()

from aioice import Candidate, Connection, ice, stun  # noqa: E402  # only findable now
from aioice.candidate import candidate_foundation, candidate_priority  # noqa: E402

CANDIDATE_COUNT_MAX = 16  # ours that go into a description, and the peer's that we try
RECEIVE_COUNT_MAX = 8192  # datagrams waiting for DTLS; each at most an MTU
SOCKET_BUFFER_BYTES = 1 << 20  # what we ask for; the kernel's limit may give less
ENGINE_BUFFER_BYTES = 8 << 20  # the same for an engine: 25 ms of 2.5 Gbit/s
# Between the first checks of two pairs: the least that RFC 8445 allows (section 14.2).  aioice takes 20 ms, and with
# several LANs on one side most pairs lead nowhere; those it learns of later are still checked at its own pace.
PACE_S = 0.005
PROBE_COUNT_MAX = 4
PROBE_INTERVAL_S = 0.25  # chosen: above most round trips; a slower peer gets four intervals

_ICE_CHARS = re.compile(r"[a-zA-Z0-9+/]+")
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h: above the system's limit, for who may administer the network
_SO_RCVBUFFORCE = 33
_IP_RECVERR = 11  # linux/in.h
_IPV6_RECVERR = 25  # linux/in6.h
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU = 23, 24
_PMTUDISC_PROBE = 3  # never fragment, and leave it to us what fits the path
_IPV4_UDP_BYTES, _IPV6_UDP_BYTES = 28, 48
MTU_BYTES_MIN = 1280  # RFC 8200, section 5
# aiortc takes 1500 bytes of a record at a time and the rest for the next packet; a browser drops what is above 2048.
# So no path is probed for more, jumbo frames or not: a probe must not cost a peer the packets that follow it.
DATAGRAM_BYTES_PROBED_MAX = 1500
DATAGRAM_BYTES_RELAYED = 1280  # what TURN adds fits a path of 1500 bytes, over TCP and TLS too

_UNCHECKED = (ice.CandidatePair.State.FROZEN, ice.CandidatePair.State.WAITING)

# What aioice raises on STUN messages that are well framed and wrong inside.
_STUN_ERRORS = (ValueError, KeyError, IndexError, AssertionError, struct.error)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What an engine needs to move a link's datagrams; the socket stays the agent's to close.

    address: where datagrams go; None: fd is one end of a socket pair.  datagram_bytes_max: what is worth probing for.
    """

    fd: int
    address: tuple[str, int] | None
    datagram_bytes_max: int


class Endpoint(ice.StunProtocol):
    """One UDP socket of a link."""

    def __init__(self, agent: Ice, sock: socket.socket) -> None:
        super().__init__(agent)
        self._agent = agent
        self._socket = sock
        self._agent.endpoints.add(self)

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        assert isinstance(data, bytes)
        first = data[0] if data else 255
        if 20 <= first <= 63:
            self._agent.dtls_received(data)
        elif first <= 3:
            try:
                super().datagram_received(data, addr)
            except _STUN_ERRORS:
                self._agent.drop_counts["stun-malformed"] += 1
        else:
            self._agent.drop_counts["not-dtls-nor-stun"] += 1

    def error_received(self, exc: Exception) -> None:
        """Read what the kernel queued, or the socket stays readable for ever, and tell the agent whom it was about."""
        with contextlib.suppress(OSError):
            while True:
                _, _, _, address = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
                self._agent.error_about(self, address)

    def connection_lost(self, exc: Exception | None) -> None:
        self._agent.endpoints.discard(self)
        super().connection_lost(exc)

    @property
    def receive_buffer_bytes(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def watch_errors(self) -> None:
        """Have ICMP errors reported.  Not before nomination: a dead candidate's error would eat the next good send."""
        if self._is_ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)

    def release(self, remote: tuple[str, int]) -> HandedOver:
        """Read no more: an engine does from now on."""
        assert isinstance(self.transport, DatagramTransport)
        sock = self.transport.release()
        _set_buffers(sock, ENGINE_BUFFER_BYTES)
        if self._is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        overhead = _IPV6_UDP_BYTES if self._is_ipv6 else _IPV4_UDP_BYTES
        bytes_max = min(mtu_towards(sock.getsockname()[0], remote) - overhead, DATAGRAM_BYTES_PROBED_MAX)
        return HandedOver(sock.fileno(), remote, bytes_max)

    def return_to_socket(self, data: bytes) -> None:
        """Have whoever reads the socket now read this datagram too."""
        with contextlib.suppress(OSError):  # a full buffer loses datagrams, as it always does
            self._socket.sendto(data, self._socket.getsockname())

    @property
    def _is_ipv6(self) -> bool:
        return self._socket.family == socket.AF_INET6


class Ferry:
    """Carries datagrams between a relayed pair, which only aioice can speak for, and an engine, by a socket pair."""

    def __init__(self, pair: ice.CandidatePair, watch: Watch) -> None:
        self._pair = pair
        self._watch = watch
        self._ours, self._engines = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self._engines):
            end.setblocking(False)
        watch.add(self._ours.fileno(), self._ready)

    @property
    def handed_over(self) -> HandedOver:
        return HandedOver(self._engines.fileno(), None, DATAGRAM_BYTES_RELAYED)

    def received(self, data: bytes) -> None:
        """Pass on what came from the relay."""
        with contextlib.suppress(OSError):  # full: lost, as on any path
            self._ours.send(data)

    def _ready(self, events: int) -> None:
        for _ in range(READ_COUNT_MAX):
            try:
                data = self._ours.recv(DATAGRAM_BYTES_MAX)
            except OSError:
                return
            self._pair.protocol.transport.sendto(data, self._pair.remote_addr)

    def close(self) -> None:
        """Pass on what the engine said last, its goodbye, and close both ends; the engine has let go of its own."""
        self._ready(select.EPOLLIN)
        self._watch.discard(self._ours.fileno())
        self._ours.close()
        self._engines.close()


class Ice(Connection):
    """The ICE agent of one link.

    addresses: the local addresses to make host candidates of.  refused: networks in which no remote candidate may lie.
    lost: called once, with a reason, when the pair no longer carries.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        addresses: Sequence[str],
        refused: Sequence[IPv4Network | IPv6Network],
        drop_counts: Counter[str],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(ice_controlling=controlling)
        self.endpoints: set[Endpoint] = set()
        self.drop_counts = drop_counts
        self.state = "new"
        self._addresses = addresses[:CANDIDATE_COUNT_MAX]
        self._refused = refused
        self._lost = lost
        self._nomination: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connecting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._error_count = 0
        self._remote_count = 0
        self._received: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._watch = Watch()
        self._carried: ice.CandidatePair | None = None  # what an engine carries
        self._ferry: Ferry | None = None

    @property
    def role(self) -> str:
        return "controlling" if self.ice_controlling else "controlled"

    @property
    def socket_count(self) -> int:
        """How many sockets are open: one per host candidate and one per relay."""
        return len(self.endpoints) + sum(not isinstance(protocol, Endpoint) for protocol in self._protocols)

    @property
    def receive_buffer_bytes(self) -> int:
        """What the kernel holds for us per socket; 0 if there is none."""
        return min((endpoint.receive_buffer_bytes for endpoint in self.endpoints), default=0)

    # ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def gather_candidates(self) -> None:
        """Open the sockets, in one turn of the loop.

        aioice's own looks at every interface first, for addresses that are not used here, and takes three turns: on a
        busy machine whatever else has come in goes before the offer.
        """
        if not self._local_candidates_start:
            self._local_candidates_start = True
            self._local_candidates += await self.get_component_candidates(1, [])
            self._local_candidates_end = True

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        """Open one socket per chosen address and return the host candidates."""
        candidates = []
        for index, address in enumerate(self._addresses):
            sock = _bind(address)
            if sock is None:  # the address went away since it was listed
                continue
            endpoint = Endpoint(self, sock)
            DatagramTransport(self._watch, sock, endpoint)
            endpoint.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65535 - index),  # no two alike: RFC 8445, section 5.1.2
                host=address,
                port=sock.getsockname()[1],
                type="host",
            )
            self._protocols.append(endpoint)
            candidates.append(endpoint.local_candidate)
        return candidates

    async def find_more(self, servers: Sequence[IceServer], found: Callable[[Candidate], None]) -> None:
        """Ask the servers for further candidates of ours; found is called with each as its answer comes."""
        asks: list[Coroutine[Any, Any, tuple[Candidate, ice.StunProtocol | None]]] = []
        for server in servers:
            if server.scheme == "stun":
                asks += [
                    ice.server_reflexive_candidate(endpoint, (server.host, server.port))
                    for endpoint in self.endpoints
                    if ":" not in endpoint.local_candidate.host  # aioice asks STUN over IPv4 only
                ]
            else:
                asks.append(self._ask_turn(server))
        tasks = [asyncio.create_task(ask, name="ice-server") for ask in asks]
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    candidate, relay = await answer
                except (OSError, stun.TransactionError):
                    self.drop_counts["ice-server-silent"] += 1
                    continue
                if relay is not None:
                    self._protocols.append(relay)
                    for remote in self.remote_candidates:
                        self._pair_remote_candidate(remote)
                    self.sort_check_list()
                self._local_candidates.append(candidate)
                found(candidate)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ask_turn(self, server: IceServer) -> Coroutine[Any, Any, tuple[Candidate, ice.StunProtocol]]:
        return ice.relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: ice.StunProtocol(self),
            turn_server=(server.host, server.port),
            turn_username=server.username,
            turn_password=server.password,
            turn_ssl=server.scheme == "turns",
            turn_transport=server.transport,
        )

    async def add_remote(self, candidates: Iterable[str]) -> None:
        """Try the peer's candidates; what is no usable UDP address is a counted drop."""
        for text in candidates:
            candidate = self._candidate_untrusted(text)
            if candidate is None or self._remote_count >= CANDIDATE_COUNT_MAX:
                self.drop_counts["candidate-refused"] += 1
                continue
            self._remote_count += 1
            await self.add_remote_candidate(candidate)

    def _candidate_untrusted(self, text: str) -> Candidate | None:
        try:
            candidate = Candidate.from_sdp(text)
            address = ipaddress.ip_address(candidate.host)
        except ValueError:
            return None
        usable = (
            candidate.component == 1
            and candidate.transport.lower() == "udp"
            and candidate.type in ("host", "srflx", "relay")
            and 0 < candidate.port < 65536
            and 0 <= candidate.priority < 2**32
            and not address.is_multicast
            and not address.is_unspecified
            # A peer must not have us knock at our own local services; a link inside one machine is another matter.
            and (not address.is_loopback or any(ipaddress.ip_address(own).is_loopback for own in self._addresses))
            and not any(address in network for network in self._refused)
        )
        return candidate if usable else None

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def reach(self, ufrag: str, pwd: str, candidates: Iterable[str]) -> None:
        """Connect; returns once a pair is nominated.

        Raises RemoteProtocolError for credentials outside the grammar and ConnectionError if the agent gives up.  More
        candidates may follow through add_remote() at any time, so it never gives up for want of them.
        """
        if not (4 <= len(ufrag) <= 256 and 22 <= len(pwd) <= 256 and _ICE_CHARS.fullmatch(ufrag + pwd)):
            raise RemoteProtocolError("malformed", "ICE credentials")
        self.remote_username, self.remote_password = ufrag, pwd
        await self.add_remote(candidates)
        connecting = self._connecting = asyncio.create_task(self.connect(), name="ice-connect")
        over = (connecting, self._nomination)
        done: set[asyncio.Future[None]] = set()
        while not done and any(pair.state in _UNCHECKED for pair in self._check_list):
            done, _ = await asyncio.wait(over, timeout=PACE_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._check_periodic()
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        if not self._nomination.done():
            await connecting
            raise ConnectionError("no pair was nominated")
        self.state = "completed"

    def check_complete(self, pair: ice.CandidatePair) -> None:
        super().check_complete(pair)
        if pair.nominated and pair.state is ice.CandidatePair.State.SUCCEEDED:
            self._nominated[1] = self._carried or max(
                (one for one in self._check_list if one.nominated and one.state is pair.state), key=self._priority
            )
            if isinstance(pair.protocol, Endpoint):
                pair.protocol.watch_errors()
            if not self._nomination.done():
                self._nomination.set_result(None)

    def _priority(self, pair: ice.CandidatePair) -> int:
        return ice.candidate_pair_priority(pair.local_candidate, pair.remote_candidate, self.ice_controlling)

    async def close(self) -> None:
        """Close every socket.  aioice calls it too, when consent has expired."""
        current = asyncio.current_task()
        for task in (self._connecting, self._probing):
            if task is not None and task is not current and not task.done():
                task.cancel()
                await asyncio.wait((task,))
            if task is not None and task.done() and not task.cancelled():
                task.exception()  # looked at, so that nobody logs it
        self.state = "closed"
        self._wake_reader()
        if self._ferry is not None:
            self._ferry.close()
            self._ferry = None
        await super().close()
        self._lost("consent")
        self._let_go()

    def _let_go(self) -> None:
        """Drop what leads back here: what is over goes at once, it does not wait for the collector to find it."""
        self._lost = _nobody
        self._carried = self._connecting = self._probing = None
        self._check_list.clear()
        self._early_checks.clear()
        self._query_consent_task = None

    # ── an engine that carries what DTLS protects ────────────────────────────────────────────────────────────────────

    def hand_over(self) -> HandedOver:
        """Stop reading the nominated pair's socket and return it, for an engine to use until close().

        The pair stays the same from now on.  Should the peer send on another one, the engine gets that too, if slowly.
        Raises ConnectionError if the agent has closed.
        """
        pair = self._nominated.get(1)
        if pair is None:
            raise ConnectionError("the link is closed")
        self._carried = pair
        if isinstance(pair.protocol, Endpoint):
            handed_over = pair.protocol.release(pair.remote_addr)
        else:
            self._ferry = Ferry(pair, self._watch)
            handed_over = self._ferry.handed_over
        while self._received:
            self._return(self._received.popleft())
        return handed_over

    def _return(self, data: bytes) -> None:
        """Give the engine a datagram that was read here."""
        if self._ferry is not None:
            self._ferry.received(data)
        elif self._carried is not None and isinstance(self._carried.protocol, Endpoint):
            self._carried.protocol.return_to_socket(data)

    def engine_received(self, data: bytes, address: tuple[str, int] | None) -> None:
        """Take a datagram from the engine that is no DTLS record."""
        if self._carried is not None and address is not None:
            self._carried.protocol.datagram_received(data, address)

    def engine_error(self, address: tuple[str, int] | None) -> None:
        """Take the engine's word that the kernel could not deliver to address; None: to our peer."""
        pair = self._carried
        if pair is not None and isinstance(pair.protocol, Endpoint):
            self.error_about(pair.protocol, address or pair.remote_addr)

    # ── a peer that is no more ───────────────────────────────────────────────────────────────────────────────────────

    def error_about(self, endpoint: Endpoint, address: tuple[str, int]) -> None:
        """The kernel could not deliver to address; look whether our peer is still there."""
        pair = self._nominated.get(1)
        if pair is None or pair.protocol is not endpoint or address[:2] != pair.remote_addr or self.state == "closed":
            return
        self._error_count += 1
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(pair), name="ice-probe")

    async def _probe(self, pair: ice.CandidatePair) -> None:
        assert self.remote_password is not None
        try:
            for _ in range(PROBE_COUNT_MAX):
                errors_before = self._error_count
                request = self.build_request(pair, nominate=False)
                asked = pair.protocol.request(
                    request, pair.remote_addr, integrity_key=self.remote_password.encode(), retransmissions=0
                )
                try:
                    await asyncio.wait_for(asked, PROBE_INTERVAL_S)
                    return  # it answers: the error was forged, or is over
                except stun.TransactionFailed:
                    break  # something else answers there: the peer's process is another one now
                except (stun.TransactionError, TimeoutError):
                    if self._error_count > errors_before:
                        break
            else:
                return  # silent but without further errors: consent decides
            self._lost("unreachable")
        finally:
            self._probing = None

    # ── what DTLS uses ───────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes, component: int) -> None:
        """Take what aioice took for data: through a relay all of it, from an endpoint only STUN it could not read."""
        if data and 20 <= data[0] <= 63:
            self.dtls_received(data)
        else:
            self.drop_counts["stun-malformed"] += 1

    def dtls_received(self, data: bytes) -> None:
        """Queue one datagram for DTLS, or give it to the engine that has taken over."""
        if self._carried is not None:
            self._return(data)
            return
        if len(self._received) >= RECEIVE_COUNT_MAX:
            self.drop_counts["receive-queue-full"] += 1
            return
        self._received.append(data)
        self._wake_reader()

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        super().protocol_lost(protocol)
        pair = self._nominated.get(1)
        if pair is not None and pair.protocol is protocol:
            self._lost("socket")

    def abandon(self) -> None:
        """Give DTLS nothing more, not even what is here: it gives up at once."""
        self.state = "abandoned"
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _recv(self) -> bytes:
        if self.state == "abandoned":
            raise ConnectionError("the link is over")
        while not self._received:
            if self.state in ("abandoned", "closed"):
                raise ConnectionError("the link is over")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._received.popleft()

    def send_datagram(self, data: bytes) -> None:
        """Send one datagram to the peer; without a pair it is dropped."""
        pair = self._nominated.get(1)
        if pair is not None:
            pair.protocol.transport.sendto(data, pair.remote_addr)

    async def _send(self, data: bytes) -> None:
        pair = self._nominated.get(1)
        if pair is None:
            raise ConnectionError("the link is closed")
        await pair.protocol.send_data(data, pair.remote_addr)


def _nobody(reason: str) -> None:
    """Is told what became of a link that is closed already."""


def host_addresses(excluded: Sequence[IPv4Network | IPv6Network]) -> list[str]:
    """Return this machine's addresses that a peer may reach: no loopback, no link-local IPv6, none of excluded."""
    found = ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
    return [
        text for text in dict.fromkeys(found) if not any(ipaddress.ip_address(text) in network for network in excluded)
    ][:CANDIDATE_COUNT_MAX]


def mtu_towards(local: str, remote: tuple[str, int]) -> int:
    """Return the MTU of the interface that carries packets from local to remote; IPv6's least if unknown."""
    family, level, option = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU)
        if ":" in local
        else (socket.AF_INET, socket.IPPROTO_IP, _IP_MTU)
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((local, 0))
            probe.connect(remote)
            return probe.getsockopt(level, option)
        except OSError:
            return MTU_BYTES_MIN


def _bind(address: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        _set_buffers(sock, SOCKET_BUFFER_BYTES)
        sock.bind((address, 0))
    except OSError:
        sock.close()
        return None
    return sock


def _set_buffers(sock: socket.socket, size: int) -> None:
    """Ask for buffers of that size; without the right to have them, the system's limit is what we get."""
    for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
