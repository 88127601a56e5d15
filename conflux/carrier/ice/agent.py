"""ICE for one link (RFC 8445): aioice's agent, made quick to connect, hard to crash and quick to notice a dead peer.

What differs from aioice, and why:
- The caller gives the addresses for host candidates.  Those that STUN and TURN find come later, so no offer waits for
  a server.
- DTLS begins beside ICE.  A client's first flight goes right behind the first checks, as small as they are; any other
  goes where an authenticated check of the peer came from.  That saves a round trip (see early.py).
- A link goes on as soon as a pair is nominated.  aioice's connect() returns up to 20 ms later, at its next pacing tick,
  and goes on in the background here.
- Datagrams are sorted by their first byte (RFC 7983) before any parser sees them.  An exception in the STUN parser is a
  counted drop.
- Of several nominated pairs both sides choose the one of highest priority, so both choose the same.  aioice takes the
  last that answered.
- A check that is still unanswered when the peer's own comes is sent again at once (RFC 8445, section 7.3.1.4).  Behind
  home routers the first check of one side is lost as a rule, and aioice repeats it after half a second.
- The kernel reports ICMP errors on the nominated pair.  Such an error can be forged, so it only starts a few quick
  connectivity checks, and only their silence ends the link.  That notices a killed peer in well under a second of
  traffic; consent (RFC 7675) takes half a minute.
- Consent is asked for every 16 s, and more often only while no answer comes (see consent.py); aioice asks every 5 s.

Offers to RTCDtlsTransport what it uses of an RTCIceTransport: role, state, _send, _recv.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from conflux.carrier import lean
from conflux.carrier.drop import Drop
from conflux.carrier.ice.consent import Consent
from conflux.carrier.ice.datagrams import DatagramTraffic, DatagramTransport, Watch, is_dtls
from conflux.carrier.ice.early import Early
from conflux.carrier.ice.endpoint import Agent, Endpoint, HandedOver
from conflux.carrier.ice.ferry import Ferry
from conflux.carrier.ice.reflexive import address_of, seen_by_stun
from conflux.carrier.ice.server import IceServer
from conflux.carrier.ice.sockets import bind
from conflux.carrier.interface import CANDIDATE_COUNT_MAX, CarrierEnd
from conflux.errors import RemoteProtocolError

lean.load()

from aioice import Candidate, ice, stun  # noqa: E402  # only findable now
from aioice.candidate import candidate_foundation, candidate_priority  # noqa: E402

RECEIVE_COUNT_MAX = 8192  # datagrams waiting for DTLS; each at most an MTU
# Between the first checks of two pairs: the least that RFC 8445 allows (section 14.2).  aioice takes 20 ms.  That is
# long with several LANs on one side, where most pairs lead nowhere.  It still paces the pairs that it learns of later.
PACE_S = 0.005
# A check that crosses the peer's on the way needs no repetition.  On a LAN they cross within this; on a longer way the
# repetition may be for nothing, and costs a datagram each way.
CROSSING_S = 0.005
# Addresses that the peer's checks come from and that it did not tell: a router makes one or two of each of its own.
LEARNT_COUNT_MAX = CANDIDATE_COUNT_MAX
FIRST_SEEN_COUNT_MAX = 64  # checks of the peer that a copy is held against: more than a link takes to open
EARLY_CHECK_COUNT_MAX = 64  # of a peer whose password is not here yet
PROBE_COUNT_MAX = 4
PROBE_INTERVAL_S = 0.25  # chosen: above most round trips; a slower peer gets four intervals

_ICE_CHARS = re.compile(r"[a-zA-Z0-9+/]+")
_UNCHECKED = (ice.CandidatePair.State.FROZEN, ice.CandidatePair.State.WAITING)
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class State(StrEnum):
    """Where an agent stands.  aiortc knows the first three."""

    NEW = "new"
    COMPLETED = "completed"  # a pair is nominated
    CLOSED = "closed"
    ABANDONED = "abandoned"  # still open, but DTLS gets nothing more


def is_scoped(candidate: Candidate) -> bool:
    """Say whether a candidate is a link-local IPv6 address, which counts on one wire alone."""
    address = ipaddress.ip_address(candidate.host)
    return address.version == 6 and address.is_link_local


class Ice(Agent):
    """The ICE agent of one link.

    addresses: the local addresses to make host candidates of.  refused: networks in which no remote candidate may lie.
    lost: called when the pair no longer carries; the first reason counts.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        addresses: Sequence[str],
        refused: Sequence[IPv4Network | IPv6Network],
        drop_counts: Counter[str],
        lost: Callable[[CarrierEnd], None],
    ) -> None:
        super().__init__(ice_controlling=controlling)
        self.endpoints: set[Endpoint] = set()
        self.drop_counts = drop_counts
        self.traffic = DatagramTraffic()
        self.state = State.NEW
        self._addresses = addresses[:CANDIDATE_COUNT_MAX]
        self._refused = refused
        self._lost = lost
        self._nomination: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connecting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._checks: dict[ice.CandidatePair, tuple[stun.Message, float]] = {}  # in progress, and since when
        self._more_to_check = asyncio.Event()
        self._early: Early[ice.CandidatePair] = Early()
        self._error_count = 0
        self._remote_count = 0
        self._learnt: set[tuple[str, int]] = set()
        self._first_seen: dict[bytes, tuple[str, int]] = {}  # by transaction: where a check came from first
        self._received: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._watch = Watch()
        self._carried: ice.CandidatePair | None = None  # the pair whose datagrams an engine moves
        self._ferry: Ferry | None = None

    @property
    def role(self) -> str:
        """Our ICE role, in aiortc's words: controlling or controlled."""
        return "controlling" if self.ice_controlling else "controlled"

    @property
    def socket_count(self) -> int:
        """How many sockets are open: one per host candidate and one per relay."""
        return len(self.endpoints) + sum(not isinstance(protocol, Endpoint) for protocol in self._protocols)

    @property
    def receive_buffer_bytes(self) -> int:
        """The size of the smallest receive buffer of our sockets; 0 without a socket."""
        return min((endpoint.receive_buffer_bytes for endpoint in self.endpoints), default=0)

    # ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def gather_candidates(self) -> None:
        """Open the sockets, in one turn of the loop.

        aioice's own looks at every interface first, for addresses that are not used here, and takes three turns.  On a
        busy machine other work would go before the offer in each.
        """
        if not self._local_candidates_start:
            self._local_candidates_start = True
            self._local_candidates += await self.get_component_candidates(1, [])
            self._local_candidates_end = True

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        """Open one socket per chosen address and return the host candidates."""
        candidates = []
        for index, address in enumerate(self._addresses):
            sock = bind(address)
            if sock is None:  # the address went away since it was listed
                continue
            endpoint = Endpoint(self, sock)
            DatagramTransport(self._watch, sock, endpoint, self.traffic)
            endpoint.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65535 - index),  # no two alike: RFC 8445, section 5.1.2
                host=address.partition("%")[0],
                port=sock.getsockname()[1],
                type="host",
            )
            self._protocols.append(endpoint)
            candidates.append(endpoint.local_candidate)
        return candidates

    async def find_more(self, servers: Sequence[IceServer], found: Callable[[Candidate], None]) -> None:
        """Ask the servers for further candidates of ours; found is called with each."""
        asks: list[Coroutine[Any, Any, tuple[Candidate, ice.StunProtocol | None]]] = []
        for server in servers:
            if server.scheme == "stun":
                family = 6 if ":" in server.host else 4  # of a name, the IPv4 address
                asks += [
                    seen_by_stun(endpoint, server)
                    for endpoint in self.endpoints
                    if ipaddress.ip_address(endpoint.local_candidate.host).version == family
                    and not is_scoped(endpoint.local_candidate)
                ]
            else:
                asks.append(self._ask_turn(server))
        tasks = [asyncio.create_task(ask, name="ice-server") for ask in asks]
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    candidate, relay = await answer
                except (OSError, stun.TransactionError):
                    self.drop_counts[Drop.ICE_SERVER_SILENT] += 1
                    continue
                if relay is not None:
                    self._protocols.append(relay)
                    for remote in self.remote_candidates:
                        self._pair_remote_candidate(remote)
                    self.sort_check_list()
                if any((candidate.host, candidate.port) == (one.host, one.port) for one in self._local_candidates):
                    continue  # no router in between, or the servers agree: redundant (RFC 8445, section 5.1.3)
                self._local_candidates.append(candidate)
                found(candidate)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_turn(self, server: IceServer) -> tuple[Candidate, ice.StunProtocol]:
        address = await address_of(server)
        is_tls = server.scheme == "turns"  # its certificate has the name; aioice looks that up again, and it is known
        relayed: tuple[Candidate, ice.StunProtocol] = await ice.relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: ice.StunProtocol(self),
            turn_server=(server.host if is_tls else address, server.port),
            turn_username=server.username,
            turn_password=server.password,
            turn_ssl=is_tls,
            turn_transport=server.transport,
        )
        return relayed

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        """Pair a candidate of the peer; link-local IPv6 ones with their like alone (RFC 8445, section 6.1.2.2)."""
        super()._pair_remote_candidate(remote_candidate)
        self._check_list = [
            pair for pair in self._check_list if is_scoped(pair.local_candidate) == is_scoped(pair.remote_candidate)
        ]

    async def add_remote(self, candidates: Iterable[str]) -> None:
        """Try the peer's candidates.  One that is no usable UDP address is a counted drop."""
        for text in candidates:
            candidate = self._candidate_untrusted(text)
            if candidate is None or self._remote_count >= CANDIDATE_COUNT_MAX:
                self.drop_counts[Drop.CANDIDATE_REFUSED] += 1
                continue
            self._remote_count += 1
            await self.add_remote_candidate(candidate)
            self._more_to_check.set()

    def _candidate_untrusted(self, text: str) -> Candidate | None:
        try:
            candidate = Candidate.from_sdp(text)
        except ValueError:
            return None
        usable = (
            candidate.component == 1
            and candidate.transport.lower() == "udp"
            and candidate.type in ("host", "srflx", "relay")
            and 0 < candidate.port < 65536
            and 0 <= candidate.priority < 2**32
            and self._may_send_to(candidate.host)
        )
        return candidate if usable else None

    def _may_send_to(self, host: str) -> bool:
        """Say whether an address that the peer names, or sends from, is one that it may have us send to."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return (
            not address.is_multicast
            and not address.is_unspecified
            and address != _BROADCAST
            # A peer must not have us send to our own local services, unless the link itself is inside this machine.
            and (not address.is_loopback or any(ipaddress.ip_address(own).is_loopback for own in self._addresses))
            # An IPv4 address in an IPv6 one: no node has such a candidate, and it would pass by the other rules.
            and getattr(address, "ipv4_mapped", None) is None
            and not any(address in network for network in self._refused)
        )

    def _may_learn(self, transaction: bytes, address: tuple[str, int]) -> bool:
        """Say whether a check from there counts: no copy, and from where the peer said, or from a few others."""
        is_copy = self._first_seen.setdefault(transaction, address) != address
        if len(self._first_seen) > FIRST_SEEN_COUNT_MAX:
            del self._first_seen[next(iter(self._first_seen))]
        if address in self._learnt or any(
            (known.host, known.port) == address for known in self.remote_candidates if known.type != "prflx"
        ):
            return True
        if is_copy or len(self._learnt) >= LEARNT_COUNT_MAX or not self._may_send_to(address[0]):
            return False
        self._learnt.add(address)
        return True

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def reach(self, ufrag: str, pwd: str, candidates: Iterable[str]) -> None:
        """Connect; returns once a pair is nominated.

        Raises RemoteProtocolError for credentials outside the grammar and ConnectionError if the agent gives up.  More
        candidates may follow through add_remote() at any time, so it never gives up for want of them.
        """
        if not (4 <= len(ufrag) <= 256 and 22 <= len(pwd) <= 256 and _ICE_CHARS.fullmatch(ufrag + pwd)):
            raise RemoteProtocolError(CarrierEnd.MALFORMED, "ICE credentials")
        self.remote_username, self.remote_password = ufrag, pwd
        await self.add_remote(candidates)
        connecting = self._connecting = asyncio.create_task(self.connect(), name="ice-connect")
        pacing = asyncio.create_task(self._pace(), name="ice-pace")
        try:
            await asyncio.wait((connecting, self._nomination), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pacing.cancel()
        if not self._nomination.done():
            await connecting
            raise ConnectionError("no pair was nominated")
        self.state = State.COMPLETED

    async def _pace(self) -> None:
        """Check what is not checked yet, one pair after the other; the pairs of candidates that come late, at once."""
        await asyncio.sleep(0)  # connect() forms the pairs and starts the first check
        while True:
            self._more_to_check.clear()
            while any(pair.state in _UNCHECKED for pair in self._check_list):
                await asyncio.sleep(PACE_S)
                self._check_periodic()
            await self._more_to_check.wait()
            self._check_periodic()

    def build_request(self, pair: ice.CandidatePair, nominate: bool) -> stun.Message:
        """Return a check of the pair; one that begins its checks is kept, to be sent again."""
        request = super().build_request(pair, nominate)
        if pair.state is ice.CandidatePair.State.IN_PROGRESS:
            self._checks[pair] = request, time.monotonic()
        return request

    async def check_start(self, pair: ice.CandidatePair) -> None:
        """Check a pair; a first flight of DTLS goes right behind."""
        asyncio.get_running_loop().call_soon(self._send_early, self._early.checked(pair), pair)
        await super().check_start(pair)

    def _send_early(self, data: bytes | None, pair: ice.CandidatePair) -> None:
        if data is not None and not self._closing:
            pair.protocol.transport.sendto(data, pair.remote_addr)

    def request_received(self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol) -> None:
        """Take a request; of a peer whose password is not here yet, so many are kept."""
        if not self._early_checks_done and len(self._early_checks) >= EARLY_CHECK_COUNT_MAX:
            self.drop_counts[Drop.CANDIDATE_REFUSED] += 1
            return
        super().request_received(message, addr, protocol)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol) -> None:
        """Take a check of the peer.  If ours of the same pair has no answer yet, it may have been lost: send it again.

        The router before the peer lets a check in only once the peer has sent one itself.
        """
        if not self._may_learn(message.transaction_id, addr):
            self.drop_counts[Drop.CANDIDATE_REFUSED] += 1
            return
        super().check_incoming(message, addr, protocol)
        for pair in self._check_list:
            if pair.protocol is protocol and pair.remote_addr == addr:
                is_answered = pair.state is ice.CandidatePair.State.SUCCEEDED
                self._send_early(self._early.proven(pair, is_answered=is_answered), pair)
        for pair, (request, sent_at) in self._checks.items():
            if (
                pair.protocol is protocol
                and pair.remote_addr == addr
                and request.transaction_id in protocol.transactions
                and time.monotonic() - sent_at > CROSSING_S
            ):
                protocol.send_stun(request, addr)

    def check_complete(self, pair: ice.CandidatePair) -> None:
        """Take the result of a pair's check: of the nominated pairs that work, the one of highest priority carries."""
        self._checks.pop(pair, None)
        super().check_complete(pair)
        if pair.nominated and pair.state is ice.CandidatePair.State.SUCCEEDED:
            self._nominated[1] = self._carried or max(
                (one for one in self._check_list if one.nominated and one.state is pair.state), key=self._priority
            )
            if isinstance(pair.protocol, Endpoint):
                pair.protocol.watch_errors()
            self._send_early(self._early.nominated(self._nominated[1]), self._nominated[1])
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
                task.exception()  # retrieved, or asyncio logs it
        self.state = State.CLOSED
        self._wake_reader()
        if self._ferry is not None:
            self._ferry.close()
            self._ferry = None
        await super().close()
        self._lost(CarrierEnd.CONSENT)
        self._let_go()

    def _let_go(self) -> None:
        """Break reference cycles, so that the agent is freed at once and not by the collector."""
        self._lost = _ignore
        self._carried = self._connecting = self._probing = None
        self._check_list.clear()
        self._checks.clear()
        self._early = Early()
        self._early_checks.clear()
        self._query_consent_task = None

    # ── an engine that takes over the datagrams ──────────────────────────────────────────────────────────────────────

    def hand_over(self) -> HandedOver:
        """Stop reading the nominated pair's socket and return it, for an engine to use until close().

        The pair stays the same from now on.  Datagrams that the peer sends on another pair reach the engine too, by way
        of this agent, which is slower.
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
        """Pass a datagram that was read here on to the engine."""
        if self._ferry is not None:
            self._ferry.received(data)
        elif self._carried is not None and isinstance(self._carried.protocol, Endpoint):
            self._carried.protocol.return_to_socket(data)

    def engine_received(self, data: bytes, address: tuple[str, int] | None) -> None:
        """Take a datagram that the engine received and that is no DTLS record."""
        if self._carried is not None and address is not None:
            self._carried.protocol.datagram_received(data, address)

    def engine_error(self, address: tuple[str, int] | None) -> None:
        """Take the engine's report that the kernel could not deliver to address; None: to our peer."""
        pair = self._carried
        if pair is not None and isinstance(pair.protocol, Endpoint):
            self.error_about(pair.protocol, address or pair.remote_addr)

    def sends_from(self) -> str | None:
        """Return the local address that datagrams leave from; None before one is chosen, or if a server relays."""
        pair = self._nominated.get(1)
        return pair.protocol.local_candidate.host if pair is not None and isinstance(pair.protocol, Endpoint) else None

    async def query_consent(self) -> None:
        """Ask the peer for consent until it is lost; aioice calls it when a pair is nominated."""
        consent = Consent(random.random, now=time.monotonic())
        while (wait_s := consent.wait_s(now=time.monotonic())) is not None:
            await asyncio.sleep(wait_s)
            if consent.is_due(now=time.monotonic()):
                is_answered = await self._check_again(self._nominated[1])
                consent.checked(is_answered=is_answered, now=time.monotonic())
        self._query_consent_task = None  # or close() would cancel the task that it runs in
        await self.close()

    async def _check_again(self, pair: ice.CandidatePair) -> bool:
        """Send one check on the nominated pair, once; say whether it was answered."""
        assert self.remote_password is not None
        request, key = self.build_request(pair, nominate=False), self.remote_password.encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
        except stun.TransactionError:
            return False
        return True

    # ── a dead peer ──────────────────────────────────────────────────────────────────────────────────────────────────

    def error_about(self, endpoint: Endpoint, address: tuple[str, int]) -> None:
        """Take the kernel's report that it could not deliver to address; check whether our peer still answers."""
        pair = self._nominated.get(1)
        if (
            pair is None
            or pair.protocol is not endpoint
            or address[:2] != pair.remote_addr
            or self.state == State.CLOSED
        ):
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
                    return  # it answers: the error was forged, or its cause is gone
                except stun.TransactionFailed:
                    break  # another process answers there: the peer's was restarted
                except (stun.TransactionError, TimeoutError):
                    if self._error_count > errors_before:
                        break
            else:
                return  # no answer, but no further error either: consent decides
            self._lost(CarrierEnd.UNREACHABLE)
        finally:
            self._probing = None

    # ── datagrams for DTLS ───────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes, component: int) -> None:
        """Take what aioice takes for data: every datagram of a relay, and STUN of an endpoint that it cannot read."""
        if is_dtls(data):
            self.dtls_received(data)
        else:
            self.drop_counts[Drop.STUN_MALFORMED] += 1

    def dtls_received(self, data: bytes) -> None:
        """Queue one datagram for DTLS, or give it to the engine that has taken over."""
        if self._carried is not None:
            self._return(data)
            return
        if len(self._received) >= RECEIVE_COUNT_MAX:
            self.drop_counts[Drop.RECEIVE_QUEUE_FULL] += 1
            return
        self._received.append(data)
        self._wake_reader()

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        """Take the end of a socket; the link ends with that of the nominated pair."""
        super().protocol_lost(protocol)
        pair = self._nominated.get(1)
        if pair is not None and pair.protocol is protocol:
            self._lost(CarrierEnd.SOCKET)

    def abandon(self) -> None:
        """Give DTLS nothing more, not even datagrams that wait here, so that it gives up at once."""
        self.state = State.ABANDONED
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _recv(self) -> bytes:
        if self.state == State.ABANDONED:
            raise ConnectionError("the link is over")
        while not self._received:
            if self.state in (State.ABANDONED, State.CLOSED):
                raise ConnectionError("the link is over")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._received.popleft()

    def send_datagram(self, data: bytes) -> None:
        """Send one datagram to the peer; once the agent is closed it is dropped."""
        pair = self._nominated.get(1)
        if pair is not None:
            pair.protocol.transport.sendto(data, pair.remote_addr)

    async def _send(self, data: bytes) -> None:
        if self.state in (State.CLOSED, State.ABANDONED) and 1 not in self._nominated:
            raise ConnectionError("the link is closed")
        pair = self._nominated.get(1)
        if pair is not None:
            await pair.protocol.send_data(data, pair.remote_addr)
        else:
            for each in self._early.made(data):
                self._send_early(data, each)


def _ignore(reason: CarrierEnd) -> None:
    """Take the place of lost() once the agent is closed."""
