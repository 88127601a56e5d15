"""Finding nodes of the realm by mDNS (RFC 6762, RFC 6763), and being found.

    <instance>._conflux._tcp.local.   TXT r=<realm tag>  v=1        instance: 8 bytes per boot, in hex

No name, node id or key is announced.  The realm is announced as a tag that only members recognise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import cast

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from conflux.budget import TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.config import SETTLE_S, LanConfig, Place
from conflux.control.lan.handshake import INSTANCE_BYTES
from conflux.control.lan.interfaces import Interfaces, usable_interfaces
from conflux.control.lan.sieve import CountedTransport, Sieve, SievedProtocol
from conflux.errors import words_of
from conflux.host.changes import ADDRESSES, LINKS, Changes
from conflux.host.underlay import left_out

log = logging.getLogger(__name__)

SERVICE = "_conflux._tcp.local."
PROTOCOL_VERSION = b"1"
# Changes of interfaces that are followed, per second and at once: where containers come and go all the time, each one
# would be told to all neighbours.
CHANGE_RATE, CHANGE_BURST = 0.1, 4.0
RETRY_S = 30.0  # look again even without a sign of change
RESOLVE_MS_MAX = 3000
RESOLVE_COUNT_MAX = 64  # at once; any device on the LAN can announce names
# Names that wait for their turn: zeroconf shows a name once, so one that is let go is not found as long as it lasts.
WAITING_COUNT_MAX = 1024
CLOSE_S_MAX = 3.0

_TROUBLE = (OSError, RuntimeError, ValueError, TimeoutError, ZeroconfError)


class Discovery:
    """Announces this node, and looks for others.

    found(instance, places) is called for every node of the realm, and when it is announced again; gone(instance) when
    it is not announced any more; moved() when our own addresses changed.  drop: counts what is
    not looked at.  port: where we listen; None: only look.
    """

    def __init__(
        self,
        *,
        tag: bytes,
        instance: bytes,
        port: int | None,
        config: LanConfig,
        found: Callable[[bytes, tuple[Place, ...]], None],
        gone: Callable[[bytes], None],
        moved: Callable[[], None] = lambda: None,
        drop: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._sieve = Sieve(drop)
        self._drop = drop
        self.trouble: str | None = None  # in words for a person; None: all is well
        self._tag = tag.hex().encode()
        self._instance = instance
        self._port = port
        self._config = config
        self._found = found
        self._gone = gone
        self._moved = moved
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._interfaces: Interfaces | None = None  # those that mDNS is on
        self._usable = Interfaces((), ())  # those of now
        self._changes = TokenBucket(CHANGE_RATE, CHANGE_BURST)
        self._watch: Changes | None = None
        self._task: asyncio.Task[None] | None = None
        self._resolving: set[asyncio.Task[None]] = set()
        self._waiting: dict[bytes, tuple[Zeroconf, str]] = {}  # by instance, the oldest first

    async def start(self) -> None:
        """Begin.  Trouble with an interface is not raised: it is tried again."""
        # This module reports trouble with interfaces itself, once and in words that a person knows.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        with contextlib.suppress(OSError):
            self._watch = Changes(LINKS | ADDRESSES)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Withdraw the announcement and close every socket."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._close()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except OSError as error:  # no descriptor left, or the like
                self.trouble = f"cannot look at the network interfaces: {words_of(error)}"
                log.warning("mDNS: %s", self.trouble)
            await self._wait()

    async def _look(self) -> None:
        interfaces, before = usable_interfaces(self._config), self._interfaces
        self._usable = interfaces
        if interfaces != before or self._zeroconf is None:
            self._changes.take(self._now())
            if before is not None and interfaces.routed != before.routed:
                self._moved()
            if self._zeroconf is None or not await self._change(self._zeroconf, interfaces):
                await self._close()
                await self._open(interfaces)
        if self._zeroconf is not None:
            self.trouble = None

    async def _wait(self) -> None:
        if self._watch is None:
            await asyncio.sleep(RETRY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._watch.changed.wait()
            await asyncio.sleep(max(SETTLE_S, self._changes.wait_s(self._now())))
        self._watch.changed.clear()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _change(self, zeroconf: AsyncZeroconf, interfaces: Interfaces) -> bool:
        """Speak on other interfaces than before: what is known and announced on the others stays as it is.

        False: it has to be begun anew.
        """
        before = self._interfaces
        if before is None or not interfaces.multicast:
            return False
        self._note(interfaces)
        try:
            if self._port is not None and interfaces.announced != before.announced:
                await zeroconf.async_update_service(self._announcement(interfaces))
            if interfaces.multicast != before.multicast:
                await zeroconf.async_update_interfaces(list(interfaces.multicast), _ip_version(interfaces))
                await self._put_sieve(zeroconf.zeroconf)
        except _TROUBLE as error:  # an interface that is gone again, or the like
            log.debug("mDNS: %s", error)
            return False
        log.debug("mDNS on %s now", ", ".join(interfaces.multicast))
        return True

    def _note(self, interfaces: Interfaces) -> None:
        before = () if self._interfaces is None else self._interfaces.left_out
        self._interfaces = interfaces
        if set(interfaces.left_out) - set(before):
            log.warning(
                "mDNS: no room for %s; name the interfaces to use in control.lan.interfaces",
                left_out(interfaces.left_out),
            )

    async def _open(self, interfaces: Interfaces) -> None:
        """Speak on these interfaces."""
        self._note(interfaces)
        if not interfaces.multicast:
            self.trouble = "no interface with multicast"
            return
        try:
            zeroconf = self._zeroconf = AsyncZeroconf(
                interfaces=list(interfaces.multicast), ip_version=_ip_version(interfaces)
            )
            await self._put_sieve(zeroconf.zeroconf)
            self._browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._seen])
            if self._port is not None:
                # The name is random, so it is not taken; probing whether it is would cost half a second.
                await zeroconf.async_register_service(self._announcement(interfaces), cooperating_responders=True)
        except _TROUBLE as error:
            self.trouble = words_of(error)
            log.warning("mDNS: %s", self.trouble)
            await self._close()
            return
        self.trouble = None
        log.debug("mDNS on %s", ", ".join(interfaces.multicast))

    async def _put_sieve(self, zeroconf: Zeroconf) -> None:
        """Let only what may be of nodes through to zeroconf."""
        await zeroconf.async_wait_for_start()
        for protocol in zeroconf.engine.protocols:
            if protocol.transport is None or protocol.transport.transport.is_closing():
                continue
            transport = protocol.transport.transport
            if not isinstance(transport.get_protocol(), SievedProtocol):
                transport.set_protocol(SievedProtocol(cast(asyncio.DatagramProtocol, protocol), self._sieve))
        for wrapped in zeroconf.engine.senders:
            if not isinstance(wrapped.transport, CountedTransport):
                wrapped.transport = cast(asyncio.DatagramTransport, CountedTransport(wrapped.transport))

    def _announcement(self, interfaces: Interfaces) -> AsyncServiceInfo:
        name = self._instance.hex()
        return AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            addresses=[address.packed for address in interfaces.announced],
            port=self._port,
            properties={b"r": self._tag, b"v": PROTOCOL_VERSION},
            server=f"{name}.local.",  # not the host's own name, which stays private
        )

    async def _close(self) -> None:
        self._waiting.clear()
        for task in list(self._resolving):
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                if browser is not None:
                    await browser.async_cancel()
                if zeroconf is not None:
                    await zeroconf.async_close()
        except _TROUBLE as error:
            log.debug("mDNS: %s", error)

    def _seen(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Take note of an announcement, which any device on the LAN can make."""
        label = name.removesuffix(f".{SERVICE}")
        try:
            instance = bytes.fromhex(label)
        except ValueError:
            return
        if len(instance) != INSTANCE_BYTES or instance == self._instance:
            return
        if state_change is ServiceStateChange.Removed:
            self._waiting.pop(instance, None)
            self._gone(instance)
        elif instance in self._waiting or len(self._waiting) < WAITING_COUNT_MAX:
            self._waiting[instance] = zeroconf, name
            self._resolve_next()
        else:
            self._drop(Drop.MDNS_FLOOD)

    def _resolve_next(self) -> None:
        """Begin with those that have waited longest, as many as there is room for."""
        while self._waiting and len(self._resolving) < RESOLVE_COUNT_MAX:
            instance = next(iter(self._waiting))
            task = asyncio.get_running_loop().create_task(self._resolve(*self._waiting.pop(instance), instance))
            self._resolving.add(task)
            task.add_done_callback(self._resolved)

    def _resolved(self, task: asyncio.Task[None]) -> None:
        self._resolving.discard(task)
        self._resolve_next()

    async def _resolve(self, zeroconf: Zeroconf, name: str, instance: bytes) -> None:
        """Find out where an announced node is, and whether it belongs to the realm."""
        info = AsyncServiceInfo(SERVICE, name)
        try:
            complete = await info.async_request(zeroconf, RESOLVE_MS_MAX)
        except _TROUBLE as error:
            log.debug("mDNS: %s: %s", name, error)
            return
        if not complete or not info.port or info.properties.get(b"r") != self._tag:
            return
        port = info.port
        hosts = [host for host in info.parsed_scoped_addresses() if self._may_be_dialled(host)]
        if hosts:
            # Link-local IPv6 comes last: over the wrong interface it leads nowhere.
            hosts.sort(key=lambda host: host.lower().startswith("fe80"))
            self._found(instance, tuple((host, port) for host in hosts))

    def _may_be_dialled(self, host: str) -> bool:
        return self._config.allows(host) and self._usable.reaches(host)


def _ip_version(interfaces: Interfaces) -> IPVersion:
    has_ipv6 = any(":" in address for address in interfaces.multicast)
    has_ipv4 = any(":" not in address for address in interfaces.multicast)
    if has_ipv4 and has_ipv6:
        return IPVersion.All
    return IPVersion.V6Only if has_ipv6 else IPVersion.V4Only
