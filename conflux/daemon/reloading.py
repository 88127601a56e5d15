"""A reload: the running daemon takes what can change while it runs, and names what needs a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from conflux.api.rows import Reloaded
from conflux.config.change import changes, merged
from conflux.config.settings import Config, Origin
from conflux.control.channel import ControlChannel
from conflux.control.lan.channel import LanChannel
from conflux.daemon.issuing import Issuing
from conflux.daemon.limits import byte_bound, features, link_config, patience_bounds
from conflux.daemon.metering import Usage
from conflux.errors import ConfigError
from conflux.host.log import set_level
from conflux.node.node import Node
from conflux.shell.pump import Pump

log = logging.getLogger(__name__)

DAY_S = 86400

Takers = Mapping[str, Callable[[Config], None]]


def takers(
    pump: Pump, node: Node, channels: Sequence[ControlChannel], issuing: Issuing, usage: Callable[[], Usage]
) -> Takers:
    """Return what takes a new configuration, by the key of which it uses it."""

    def log_level(config: Config) -> None:
        set_level(config.node.log_level)

    def renew_expired(config: Config) -> None:
        issuing.late_s = config.realm.renew_expired * DAY_S

    def peers(config: Config) -> None:
        for channel in channels:
            if isinstance(channel, LanChannel):
                channel.set_peers(config.control.lan.peers)

    def idle_timeout(config: Config) -> None:
        node.set_patience(patience_bounds(config, usage().pace))
        pump.touch()

    def budget(config: Config) -> None:
        usage().set_bound(byte_bound(config))

    def links(config: Config) -> None:
        node.links.config = link_config(config)
        pump.touch()

    def relay(config: Config) -> None:
        said = features(config, node.own, relays=config.relay.enabled)
        pump.command(node.set_relaying, config.relay.enabled, said)

    return {
        "node.log_level": log_level,
        "realm.renew_expired": renew_expired,
        "control.lan.peers": peers,
        "stream.idle_timeout": idle_timeout,
        "stream.idle_timeout_min": idle_timeout,
        "stream.idle_timeout_max": idle_timeout,
        "stream.metered": idle_timeout,
        "budget.day": budget,
        "budget.month": budget,
        "budget.month_starts": budget,
        "link.dial_count_max": links,
        "link.dial_timeout": links,
        "link.linger": links,
        "relay.enabled": relay,
        "relay.public": relay,
    }


class Reloading:
    """origin: where the configuration is.  takers: what takes the new configuration, by the key of which it uses it."""

    def __init__(self, config: Config, origin: Origin, takers: Takers) -> None:
        self.config = config  # that which counts now
        self._origin = origin
        self._takers = takers

    def reload(self, text: str | None = None) -> Reloaded:
        """Take a configuration.  text: its content; None: the file is read.  Raises ConfigError: all stays as it is."""
        after = self._origin.load() if text is None else self._origin.parse(text)
        found = changes(self.config, after)
        self.config = merged(self.config, after)
        for take in dict.fromkeys(self._takers[key] for key in found.live):
            take(self.config)
        if found.live:
            log.info("reloaded    %s", ", ".join(found.live))
        if found.restart:
            log.warning("needs a restart: %s", ", ".join(found.restart))
        if not found.live and not found.restart:
            log.info("reloaded    nothing has changed")
        return Reloaded(found.live, found.restart)

    def on_signal(self) -> None:
        """Reload, and log why that is not possible."""
        try:
            self.reload()
        except ConfigError as error:
            log.error("not reloaded, all stays as it is: %s (`conflux reload` hands the configuration over)", error)
