"""The daemon: puts a node among its shells, keeps it running, and takes everything down again in order.

state directory (locked) ─► TUN device ─► privileges dropped ─► node ─► control channels, carrier ─► api ─► READY
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import time
from collections.abc import Awaitable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from traceback import extract_tb
from typing import Any

import uvloop

from conflux import joining, log, netlink, priority, privileges
from conflux.anchor.speed import best_aead
from conflux.api import ApiServer
from conflux.carrier.interface import CarrierEvent, Closed
from conflux.carrier.native import NativeCarrier
from conflux.carrier.rtc import RtcCarrier
from conflux.config import Config
from conflux.control.channel import Kind
from conflux.control.event import Message
from conflux.control.lan.config import LanConfig
from conflux.control.lan.mesh import LanChannel
from conflux.control.plane import ControlPlane
from conflux.datapath.config import DatapathConfig
from conflux.datapath.native import NativeDatapath
from conflux.datapath.reference import ReferenceDatapath
from conflux.echo import Echo
from conflux.errors import RemoteProtocolError, StateError
from conflux.feed import Feed
from conflux.ids import BootId, NodeId, format_node_id
from conflux.link.interface import LinkConfig
from conflux.link.links import Links
from conflux.log import LOGGER
from conflux.membership import CHECK_S, Membership
from conflux.node import Node, NodeConfig
from conflux.node.relaying import FEATURE
from conflux.operations import Operations
from conflux.pump import Pump
from conflux.realm.clock import RealmClock
from conflux.realm.credential import RELAY
from conflux.realm.founding import issuer_of
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, JoinRequest
from conflux.realm.member import Member
from conflux.realm.store import StateDir
from conflux.search.first import FirstSearch
from conflux.shuttle import Shuttle
from conflux.systemd import Notifier
from conflux.tun import Tun

EXIT_DONE = 0
EXIT_BUG = 70  # sysexits.h, EX_SOFTWARE: systemd starts us again
EXIT_DEVICE_LOST = 75  # EX_TEMPFAIL: the TUN device was taken away; starting again makes a new one
STOP_TIMEOUT_S = 5.0  # per part; what has not gone by then goes with the process
REST_S = 0.1  # chosen: after the last of several links that close together

PACKAGE = str(Path(__file__).resolve().parent)
CARRIER = str(Path(PACKAGE, "carrier"))


def run(config: Config) -> int:
    """Run the daemon until it is told to stop, and return the exit code.  Raises UserError if it cannot start."""
    log.start(config.node.log_level)
    state = StateDir.open(config.node.state_dir, create=config.realm.token is not None)
    _require_owner(state)
    state.lock()
    tun = None
    try:
        member = state.member()
        token = joining.configured_token(config) if member is None else None
        if member is None and token is None:
            raise StateError(f"{state.path}: in no realm yet: `conflux join` or `conflux realm create` first")
        # The device comes before joining: a node that cannot run must not use an invitation up.
        tun = Tun.create(config.tun.name, offloads=config.datapath.name == NativeDatapath.name)
        if member is None:
            assert token is not None
            member = joining.join_with_token(config, state, token, joining.wanted_name(config, None))
        setup = _setup(config, member)
        netlink.configure(setup)
        _load(config)
        priority.ask(config.node.nice)
        privileges.drop()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Daemon(config, state, member, tun, setup).run())
    finally:
        if tun is not None:
            tun.close()
        state.close()


def _require_owner(state: StateDir) -> None:
    """Root without capabilities may not write what is somebody else's; say so now and not at the first renewal."""
    owner = state.path.stat().st_uid
    if owner != os.geteuid():
        raise StateError(f"{state.path}: belongs to user {owner}, not {os.geteuid()}; run as its owner, or chown it")


def _load(config: Config) -> None:
    """Import what is otherwise imported when it is needed.

    Root without capabilities may not read a program that lies in somebody's home directory.
    """
    (NativeCarrier if config.datapath.name == NativeDatapath.name else RtcCarrier).prepare()
    if config.control.lan.enabled and config.control.lan.mdns:
        import conflux.control.lan.discovery

        assert conflux.control.lan.discovery


def _setup(config: Config, member: Member) -> netlink.Setup:
    networks: list[IPv4Network | IPv6Network] = [member.anchor.ipv6_prefix]
    addresses = member.addresses
    if not config.tun.ipv4:
        addresses = tuple(address for address in addresses if not isinstance(address, IPv4Address))
    if any(isinstance(address, IPv4Address) for address in addresses):
        networks.append(member.anchor.ipv4_prefix)
    return netlink.Setup(config.tun.name, config.tun.mtu, addresses, tuple(networks))


class Daemon:
    """One running node with its shells."""

    def __init__(self, config: Config, state: StateDir, member: Member, tun: Tun, setup: netlink.Setup) -> None:
        self.config = config
        self.tun = tun
        self.setup = setup
        self.started_at = time.monotonic()
        self.pump: Pump
        self.datapath: NativeDatapath | ReferenceDatapath
        self.carrier: NativeCarrier | RtcCarrier
        self.channels: list[LanChannel] = []
        self.relaying: bool
        self.membership: Membership
        self.api: ApiServer
        self._state = state
        self._member = member
        self._notifier = Notifier()
        self._stopped = asyncio.Event()
        self._exit_code = EXIT_DONE
        self._rest: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Come up, stay until stopped, go down.  Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_exception)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._build()
        try:
            await self._start()
            await self._stopped.wait()
        finally:
            self._notifier.stopping()
            await self._stop()
        return self._exit_code

    def stop(self) -> None:
        """Go down cleanly."""
        if not self._stopped.is_set():
            LOGGER.info("stopping")
            self._stopped.set()

    def fail(self, error: BaseException) -> None:
        """An exception that nobody expected: it is in the log, and the daemon ends."""
        if self._exit_code == EXIT_DONE:
            LOGGER.critical("a bug ended the daemon", exc_info=error)
            self._exit_code = EXIT_BUG
        self._stopped.set()

    def _loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What escapes in a task or callback that is not ours is its library's trouble; in ours it is a bug."""
        error = context.get("exception")
        frames = extract_tb(error.__traceback__) if error is not None else []
        inside = frames[-1].filename if frames else ""
        if inside.startswith(PACKAGE) and not inside.startswith(CARRIER):
            assert error is not None
            self.fail(error)
            return
        self.pump.drops["library-exception"] += 1
        LOGGER.warning("%s", context.get("message", "a library failed"), exc_info=error)

    def device_counts(self) -> tuple[int, int]:
        """Return how many packets the TUN device gave and took."""
        if isinstance(self.datapath, NativeDatapath):
            return self.datapath.device_counts()
        return self.tun.read_count, self.tun.written_count

    # ── building ──

    def _build(self) -> None:
        config, member = self.config, self._member
        self.relaying = config.relay.enabled and RELAY in member.chain.credential.capabilities
        clock = joining.realm_clock(self._state)
        boot = self._state.next_boot(now_unix=int(time.time()), entropy=os.urandom)
        rng = random.Random(os.urandom(16))  # noqa: S311  # jitter, not secrets
        plane = ControlPlane(
            member,
            boot=boot,
            entropy=os.urandom,
            rng=rng,
            clock=clock.now_unix,
            observe=clock.observe,
            now=Pump.now(),
            features=(FEATURE,) if self.relaying else (),
        )
        limits = config.link
        link_config = LinkConfig(
            dial_count_max=limits.dial_count_max, dial_timeout_s=limits.dial_timeout, linger_s=limits.linger
        )
        self.datapath = self._make_datapath()
        node = Node(
            member,
            boot=boot,
            config=NodeConfig(aead=best_aead(), relaying=self.relaying),
            datapath=self.datapath,
            plane=plane,
            links=Links(member.node_id, rng=rng, entropy=os.urandom, config=link_config),
            search=FirstSearch(member.node_id),
            rng=rng,
            entropy=os.urandom,
        )
        issuer = issuer_of(self._state, member)
        feed, echo = Feed(), Echo(os.urandom)
        self.pump = Pump(node, feed=feed, fail=self.fail)
        self.pump.on_message = self._on_message
        if config.control.lan.enabled:
            self.channels.append(self._lan_channel(clock, issuer, boot, rng))
        self._attach(echo)
        self.membership = Membership(
            member, issuer, clock, rng=rng, ask=self._ask, answer=self._answer, adopted=self._adopted
        )
        self.api = ApiServer(config.socket, Operations(self, feed, echo).table(), self.fail)

    def _make_datapath(self) -> NativeDatapath | ReferenceDatapath:
        config = self.config
        limits = DatapathConfig(
            idle_timeout_s=config.stream.idle_timeout,
            queue_bytes_max=config.stream.queue_bytes,
            queues_bytes_max=max(DatapathConfig().queues_bytes_max, 2 * config.stream.queue_bytes),
            hold_age_s_max=config.stream.queue_age,
            relay_bytes_per_s=config.relay.bytes_per_s,
        )
        if config.datapath.name == ReferenceDatapath.name:
            return ReferenceDatapath(limits)
        return NativeDatapath(
            limits,
            tun=self.tun.fd,
            segments_udp=self.tun.segments_udp,
            device_lost=lambda: self._device_lost(f"{self.tun.name} was removed"),
        )

    def _attach(self, echo: Echo) -> None:
        """Join the pump, the carrier and whoever moves the bytes between them."""
        anchor, datapath, pump = self._member.anchor, self.datapath, self.pump
        excluded = (anchor.ipv6_prefix, anchor.ipv4_prefix)
        ice_servers = self.config.link.ice_servers
        if isinstance(datapath, NativeDatapath):
            carrier = NativeCarrier(
                wire=datapath.wire, on_event=self._carrier_event, ice_servers=ice_servers, excluded=excluded
            )
            datapath.attach(carrier.wire_upcall, echo)
            pump.attach(carrier, datapath, self.channels)
            asyncio.get_running_loop().add_reader(datapath.fd, pump.upcalls)
            self.carrier = carrier
        else:
            plain = RtcCarrier(
                on_event=self._carrier_event, on_frame=pump.frame, ice_servers=ice_servers, excluded=excluded
            )
            pump.attach(plain, Shuttle(pump, datapath, plain, deliver=self.tun.write, echo=echo), self.channels)
            self.carrier = plain

    def _lan_channel(self, clock: RealmClock, issuer: Issuer | None, boot: BootId, rng: random.Random) -> LanChannel:
        member, settings = self._member, self.config.control.lan

        def admit(request: JoinRequest, binding: bytes) -> JoinAnswer:
            assert issuer is not None
            try:
                return issuer.join(request, binding=binding, now_unix=clock.now_unix())
            except StateError as error:  # a full card, or somebody's hand in the directory: ours to mend, not theirs
                LOGGER.error("a node cannot be let in: %s", error)
                raise RemoteProtocolError("busy", "the issuer cannot record it") from None

        return LanChannel(
            member,
            boot=boot,
            judge=lambda chain: clock.judge(chain, member.anchor),
            clock=clock.now_unix,
            entropy=os.urandom,
            rng=rng,
            config=LanConfig(
                port=settings.port,
                interfaces=settings.interfaces,
                mdns=settings.mdns,
                peers=settings.peers,
                overlay=(member.anchor.ipv6_prefix, member.anchor.ipv4_prefix),
            ),
            issuer=None if issuer is None else admit,
        )

    # ── up and down ──

    async def _start(self) -> None:
        for channel in self.channels:
            await channel.start(self.pump.arrival, self.pump.channel_changed, self.pump.bridge_changed)
        await self.api.start()
        if isinstance(self.datapath, ReferenceDatapath):
            self.tun.start(self.pump.packet, self._device_lost)
        self.pump.touch()
        self.pump.start(self._tend(), "membership")
        if self._notifier.watchdog_s is not None:
            self.pump.start(self._feed_watchdog(self._notifier.watchdog_s), "watchdog")
        # What is here now stays until the end: the collector need not look at it again.  Nor wait until what grew old
        # since is a quarter of it, as it would but for the second collect().
        gc.collect()
        gc.freeze()
        gc.collect()
        member = self._member
        text = f"{member.name} in realm {member.anchor.name} at {', '.join(map(str, member.addresses))}"
        LOGGER.info("up: %s (%s)", text, format_node_id(member.node_id))
        for channel in self.channels:
            LOGGER.info("%s: %s", channel.name, channel.state.detail)
        self._notifier.ready(text)

    async def _stop(self) -> None:
        if self._exit_code == EXIT_DONE:
            await self._within(self.pump.close(), "streams")
        await self._within(self.carrier.close(), "links")
        for channel in self.channels:
            await self._within(channel.stop(), channel.name)
        self.pump.node.plane.erase()
        if isinstance(self.datapath, NativeDatapath):
            asyncio.get_running_loop().remove_reader(self.datapath.fd)
            self.datapath.stop()
        self.tun.close()
        self._state.close()
        await self._within(self.api.stop(), "api")  # last: `conflux down` waits for its connection to end
        LOGGER.info("down")

    async def _within(self, work: Awaitable[None], what: str) -> None:
        """Give one part its time to go; whatever is wrong with it, the others go too."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await work
        except TimeoutError:
            LOGGER.warning("%s did not end within %g s", what, STOP_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  # the parts after this one must go down too
            self.fail(error)

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    def _device_lost(self, why: str) -> None:
        LOGGER.error("%s: the daemon ends, so that it can be started with a new one", why)
        self._exit_code = EXIT_DEVICE_LOST
        self._stopped.set()

    # ── rest ──

    def _carrier_event(self, event: CarrierEvent) -> None:
        self.pump.carrier_event(event)
        if isinstance(event, Closed) and self._rest is None:
            self._rest = asyncio.get_running_loop().call_later(REST_S, self._collect)

    def _collect(self) -> None:
        """Have the collector look at everything if nothing is up, so that a node at rest holds what it remembers only.

        By itself it would come once in hundreds of links.  Until then libraries' objects that know one another wait
        for it, and up to 2000 tuples of every length, which Python keeps for use again.  It takes half a millisecond,
        for it does not look at what was there at the start.
        """
        self._rest = None
        if not self.carrier.socket_count():
            gc.collect()

    # ── membership ──

    async def _tend(self) -> None:
        while True:
            self.membership.check(now=Pump.now())
            await asyncio.sleep(CHECK_S)

    def _on_message(self, message: Message) -> None:
        try:
            self.membership.receive(message)
        except RemoteProtocolError as error:
            self.pump.drops[error.reason] += 1
        except StateError as error:
            LOGGER.error("renewal: %s", error)

    def _ask(self, peer: NodeId, kind: Kind, body: bytes) -> None:
        self.pump.command(self.pump.node.request, peer, kind, body)

    def _answer(self, message: Message, kind: Kind, body: bytes) -> None:
        self.pump.command(self.pump.node.reply, message, kind, body)

    def _adopted(self, member: Member) -> None:
        try:
            self._state.save_member(member)
        except StateError as error:
            LOGGER.error("the renewed credential cannot be kept: %s", error)
        self._member = member
        self.pump.command(self.pump.node.adopt, member)
        for channel in self.channels:
            channel.adopt(member)
