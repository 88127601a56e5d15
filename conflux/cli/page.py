"""`conflux page`: serves the page in the foreground, wherever the configuration says, until it is ended."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from ipaddress import ip_address

from conflux.cli import context
from conflux.cli.entry import lives_long
from conflux.config.settings import PageSettings
from conflux.errors import UserError
from conflux.host.networks import missing
from conflux.host.underlay import interfaces
from conflux.ids import IPAddress
from conflux.web.health import Health
from conflux.web.places import LOOPBACK, OVERLAY, wanted
from conflux.web.server import PageServer
from conflux.web.source import Answer, Source, daemon

RESCAN_S = 5.0  # addresses come and go: of the overlay with the daemon, of a LAN with its lease
NICE = 10  # the page yields to the daemon, and to whatever else the board is for


def page(options: argparse.Namespace) -> int:
    """Serve the page until SIGINT or SIGTERM."""
    lives_long()
    config = context.load(options)
    with contextlib.suppress(OSError):  # a unit that forbids it has set it
        os.nice(NICE)
    source = Source(daemon(config.socket))
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(source, Health(_doctor(options)), config.page))
    return 0


def _doctor(options: argparse.Namespace) -> list[str]:
    """Return the command that looks for what is wrong here; -P: it imports nothing from the current directory."""
    places = {"--config": options.config, "--state-dir": options.state_dir}
    given = [word for name, place in places.items() if place is not None for word in (name, str(place))]
    return [sys.executable, "-P", "-m", "conflux", "doctor", "--quick", "--json", *given]


async def _serve(source: Source, health: Health, settings: PageSettings) -> None:
    server = PageServer(source, health)
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    remembering = asyncio.create_task(source.remember())
    places = _Places(server, settings)
    try:
        await places.first()
        while True:
            await places.follow((await source.seen()).status)
            await asyncio.sleep(RESCAN_S)
    finally:
        remembering.cancel()
        await server.stop()


class _Places:
    """Has the server listen where it should, as addresses come and go, and says so once."""

    def __init__(self, server: PageServer, settings: PageSettings) -> None:
        self._server = server
        self._settings = settings
        self._said: set[str] = set()

    async def first(self) -> None:
        """Listen on loopback, and where the host has addresses already.  Raises UserError if that cannot be."""
        port = self._settings.port
        try:
            self._server.listen(LOOPBACK[0], port)
        except OSError as error:
            why = "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
            raise UserError(f"cannot listen on TCP port {port}: {why}; choose another with page.port") from None
        self._say(f"the page is at http://{LOOPBACK[0]}:{port}/")
        devices = [each for each in self._settings.listen if each != OVERLAY and not _is_address(each)]
        if absent := missing(devices):
            self._say(f"page.listen: {absent}; it is waited for")

    async def follow(self, status: Answer | None) -> None:
        """Listen where the configuration says and an address is now, and nowhere else."""
        node = {} if status is None else status["node"]
        overlay = [ip_address(text) for text in node.get("addresses", ())]
        server, port = self._server, self._settings.port
        server.names = names(self._settings, status)
        try:
            now = wanted(self._settings.listen, overlay, interfaces())
        except OSError:  # no descriptor is left for the question
            return
        for address in set(server.places) - now:
            await server.leave(address)
        for address in sorted(now - set(server.places), key=lambda each: (each.version, each)):
            try:
                server.listen(address, port)
            except OSError as error:
                self._say(f"cannot listen at {address}, port {port}: {error.strerror or error}; this is tried again")
            else:
                self._say(f"the page is at http://{_in_url(address)}:{port}/")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            sys.stderr.write(f"conflux: {text}\n")
            sys.stderr.flush()


def names(settings: PageSettings, status: Answer | None) -> frozenset[str]:
    """Return the names, in lower case, that a browser may know this board by."""
    host = socket.gethostname().lower()
    found = {"localhost", host, host.partition(".")[0], *settings.names}
    if status is not None:
        found.add(status["node"]["name"])
        found.add(f"{status['node']['name']}.{status['realm']['name']}")
    return frozenset(found | {f"{name}.local" for name in found if "." not in name and name != "localhost"})


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _in_url(address: IPAddress) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
