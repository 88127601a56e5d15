"""Running a daemon from its start to its end.

state directory (locked) ─► TUN device ─► sandbox ─► no privilege ─► node ─► control channels, carrier ─► api ─► READY
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import uvloop

from conflux.api.server import make_room
from conflux.config.settings import Config, Origin
from conflux.daemon import joining, waiting
from conflux.daemon.build import Running, build, kind_of, read_ca
from conflux.daemon.daemon import Daemon
from conflux.daemon.device import interface_warnings, plan, require_a_family, watch
from conflux.daemon.ending import EXIT_DONE, Ending
from conflux.daemon.waiting import require_owner
from conflux.errors import StateError, UserError
from conflux.host import descriptors, fence, log, netlink, priority, privileges, sandbox
from conflux.host.lookers import looking_group
from conflux.host.networks import Network
from conflux.host.systemd import Notifier
from conflux.host.tun import Tun
from conflux.realm.member import Member
from conflux.state import succession
from conflux.state.broker_files import broker_of
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir

logger = logging.getLogger(__name__)


def run(
    config: Config,
    notifier: Notifier | None = None,
    log_file: Path | None = None,
    *,
    child: netlink.Child,
    origin: Origin | None = None,
) -> int:
    """Run the daemon until it is told to stop, and return the exit code.  Raises UserError if it cannot start.

    notifier: whom it tells how far it is; None: systemd.  log_file: what standard error is, kept bounded; None: it is
    none, and somebody else's.  child: configures the device.  origin: of the configuration, for a reload.
    """
    notifier = notifier or Notifier()
    log.start(config.node.log_level, log_file)
    state = StateDir.open(config.node.state_dir, create=config.realm.token is not None)
    require_owner(state)
    state.lock()
    tun = guard = None
    try:
        member = state.member()
        token = joining.configured_token(config) if member is None else None
        if member is None and token is None:
            raise StateError(f"{state.path}: in no realm yet: `conflux join` or `conflux realm create` first")
        if member is not None:
            member = _renewed(config, state, member)
        # The device comes before joining: a node that cannot run must not use an invitation up.
        tun = Tun.create(config.tun.name, offloads=kind_of(config).OFFLOADS)
        has_ipv6 = netlink.has_ipv6(config.tun.name)
        require_a_family(config, has_ipv6=has_ipv6)
        if member is None:
            assert token is not None
            child.close()  # an issuer may take its time
            joined = joining.join_when_answered(config, state, token, notifier)
            member = waiting.meanwhile(config, joining.JOINING, joined, notifier)
            if member is None:
                return EXIT_DONE
        state.guard()
        device, fenced, warnings = plan(config, member, has_ipv6=has_ipv6)
        for warning in (*warnings, *interface_warnings(config)):
            logger.warning("%s", warning)
        guard, open_to = fence.build(config.tun.name, fenced, config.tun.forward_from)  # before it has addresses
        child.configure(device)
        _load(config, has_broker=broker_of(state, member.anchor, realm_clock(state).now_unix) is not None)
        ca = read_ca(config)
        priority.ask(config.node.nice)
        descriptors.ask()
        _make_room(config.socket)
        sandbox.enter(
            state.path, config.socket, None if origin is None else origin.path
        )  # while paths to the program may still be looked up
        lookers = looking_group()
        privileges.drop()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            made = partial(
                build,
                config,
                state,
                member,
                tun,
                device,
                fenced=fenced,
                warnings=(*warnings, *open_to),
                ca=ca,
                origin=origin,
                lookers=lookers,
            )
            return runner.run(_run(made, fenced, config.tun.name, notifier))
    finally:
        if tun is not None:
            tun.close()
        if guard is not None:
            guard.close()
        state.close()


def _renewed(config: Config, state: StateDir, member: Member) -> Member:
    """Return this node with a fresh credential if it issues and its own is due; else as it is."""
    now_unix = realm_clock(state).now_unix()
    if succession.may_take_another_address(state, member, now_unix=now_unix):
        try:
            return joining.renew_late(config, state, member)
        except UserError as error:
            logger.warning("%s; this node issues, and lets itself in at another address", error)
    try:
        return succession.renew_self(state, member, now_unix=now_unix, entropy=os.urandom)
    except StateError as error:  # a full disk, or a damaged record: the credential that we have may do
        logger.error("this node issues, and cannot renew itself: %s", error)
        return member


async def _run(make: Callable[..., Running], fenced: Iterable[Network], device: str, notifier: Notifier) -> int:
    ending = Ending()
    ending.stop_on_signals()  # before anything is built, so that a signal meanwhile is an end like any other
    running = make(ending=ending)
    ending.stop_on_signals(running.reloading.on_signal)
    running.pump.start(watch(fenced, device), "networks")
    return await Daemon(running, ending, notifier).run()


def _make_room(socket: Path) -> None:
    """Make the directory of the socket, in which alone the sandbox lets it be made."""
    try:
        make_room(socket)
    except OSError as error:
        raise StateError(f"cannot make the socket {socket}: {error.strerror}") from None


def _load(config: Config, *, has_broker: bool) -> None:
    """Import the modules that are otherwise imported on first use.

    Root without capabilities may not read a program that lies in another user's home directory.
    """
    kind_of(config).prepare()
    if config.control.lan.enabled and config.control.lan.mdns:
        import conflux.control.lan.discovery

        assert conflux.control.lan.discovery
    if config.control.nats.enabled and (config.control.nats.servers or has_broker):
        import conflux.control.nats.channel
        import conflux.control.nats.renew

        assert conflux.control.nats.channel
        assert conflux.control.nats.renew
