"""Finding neighbours by mDNS (RFC 6762, RFC 6763), and being found.

    <instance>._conflux._tcp.local.   TXT r=<realm tag>  v=1        instance: 8 random bytes per boot, in hex

No name, node id or key is announced, and the realm only as a tag that members recognise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from conflux.control.lan.config import LanConfig
from conflux.control.lan.handshake import INSTANCE_BYTES
from conflux.control.lan.interfaces import Interfaces, InterfaceWatch, usable_interfaces

log = logging.getLogger(__name__)

SERVICE = "_conflux._tcp.local."
PROTOCOL_VERSION = b"1"
SETTLE_S = 0.5  # an interface comes up in several steps
RETRY_S = 30.0  # look again even if nothing seems to have changed
RESOLVE_MS_MAX = 3000
RESOLVE_COUNT_MAX = 64  # at once; names on a LAN are anybody's to announce
CLOSE_S_MAX = 3.0

_TROUBLE = (OSError, RuntimeError, ValueError, TimeoutError, ZeroconfError)


class Discovery:
    """found(instance, places) is called for every node of the realm, and when it is announced again; gone(instance).

    moved() is called when our own addresses changed.
    port: where we listen; None: only look, announce nothing.
    """

    def __init__(
        self,
        *,
        tag: bytes,
        instance: bytes,
        port: int | None,
        config: LanConfig,
        found: Callable[[bytes, tuple[tuple[str, int], ...]], None],
        gone: Callable[[bytes], None],
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.trouble: str | None = None  # what a person should know
        self._tag = tag.hex().encode()
        self._instance = instance
        self._port = port
        self._config = config
        self._found = found
        self._gone = gone
        self._moved = moved
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._interfaces: Interfaces | None = None
        self._watch: InterfaceWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._resolving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin; trouble with interfaces is not raised but retried."""
        # What it logs about single interfaces is said by us, once and in words a person knows.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        with contextlib.suppress(OSError):
            self._watch = InterfaceWatch()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Say goodbye and close every socket."""
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
            interfaces = usable_interfaces(self._config)
            if interfaces != self._interfaces or self._zeroconf is None:
                if self._interfaces is not None:
                    self._moved()
                await self._close()
                await self._open(interfaces)
            await self._wait()

    async def _wait(self) -> None:
        if self._watch is None:
            await asyncio.sleep(RETRY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._watch.changed.wait()
                await asyncio.sleep(SETTLE_S)
        self._watch.changed.clear()

    async def _open(self, interfaces: Interfaces) -> None:
        """Speak on these interfaces."""
        self._interfaces = interfaces
        if not interfaces.multicast:
            self.trouble = "no interface with multicast"
            return
        try:
            zeroconf = self._zeroconf = AsyncZeroconf(
                interfaces=list(interfaces.multicast), ip_version=_ip_version(interfaces)
            )
            self._browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._seen])
            if self._port is not None:
                # The name is random: nobody else has it, and probing for that would cost half a second.
                await zeroconf.async_register_service(self._announcement(interfaces), cooperating_responders=True)
        except _TROUBLE as error:
            self.trouble = str(error) or type(error).__name__
            log.warning("mDNS: %s", self.trouble)
            await self._close()
            return
        self.trouble = None
        log.debug("mDNS on %s", ", ".join(interfaces.multicast))

    def _announcement(self, interfaces: Interfaces) -> AsyncServiceInfo:
        name = self._instance.hex()
        return AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            addresses=[address.packed for address in interfaces.announced],
            port=self._port,
            properties={b"r": self._tag, b"v": PROTOCOL_VERSION},
            server=f"{name}.local.",  # the host's own name is nobody's business
        )

    async def _close(self) -> None:
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
        """Take note of an announcement.  Any device on the LAN can make one."""
        label = name.removesuffix(f".{SERVICE}")
        try:
            instance = bytes.fromhex(label)
        except ValueError:
            return
        if len(instance) != INSTANCE_BYTES or instance == self._instance:
            return
        if state_change is ServiceStateChange.Removed:
            self._gone(instance)
        elif len(self._resolving) < RESOLVE_COUNT_MAX:
            task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name, instance))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, name: str, instance: bytes) -> None:
        """Find out where an announced node is, and whether it is of our realm."""
        info = AsyncServiceInfo(SERVICE, name)
        try:
            complete = await info.async_request(zeroconf, RESOLVE_MS_MAX)
        except _TROUBLE as error:
            log.debug("mDNS: %s: %s", name, error)
            return
        if not complete or not info.port or info.properties.get(b"r") != self._tag:
            return
        port = info.port
        hosts = [host for host in info.parsed_scoped_addresses() if self._config.allows(host)]
        if hosts:
            # Link-local IPv6 last: without a scope, or over the wrong interface, it leads nowhere.
            hosts.sort(key=lambda host: host.lower().startswith("fe80"))
            self._found(instance, tuple((host, port) for host in hosts))


def _ip_version(interfaces: Interfaces) -> IPVersion:
    has_ipv6 = any(":" in address for address in interfaces.multicast)
    has_ipv4 = any(":" not in address for address in interfaces.multicast)
    if has_ipv4 and has_ipv6:
        return IPVersion.All
    return IPVersion.V6Only if has_ipv6 else IPVersion.V4Only
