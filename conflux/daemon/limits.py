"""What the parts of a daemon are given of its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from conflux.config.settings import Config
from conflux.datapath.config import DatapathConfig
from conflux.ids import IPAddress
from conflux.link.event import LinkConfig
from conflux.node.relaying import FEATURE, NO_IPV6, PUBLIC


def features(config: Config, own: Sequence[IPAddress], *, relays: bool) -> tuple[str, ...]:
    """Return what the node's card says of it."""
    lacks = () if any(address.version == 6 for address in own) else (NO_IPV6,)
    if not relays:
        return lacks
    return (FEATURE, PUBLIC, *lacks) if config.relay.public else (FEATURE, *lacks)


def link_config(config: Config) -> LinkConfig:
    """Return the settings of the links."""
    limits = config.link
    return LinkConfig(dial_count_max=limits.dial_count_max, dial_timeout_s=limits.dial_timeout, linger_s=limits.linger)


def datapath_config(config: Config) -> DatapathConfig:
    """Return the limits of the datapath."""
    return DatapathConfig(
        idle_timeout_s=config.stream.idle_timeout,
        queue_bytes_max=config.stream.queue_bytes,
        queues_bytes_max=max(DatapathConfig().queues_bytes_max, 2 * config.stream.queue_bytes),
        hold_age_s_max=config.stream.queue_age,
        relay_bytes_per_s=config.relay.bytes_per_s,
    )
