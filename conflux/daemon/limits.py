"""What the parts of a daemon are given of its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from conflux.config.settings import Config
from conflux.datapath.config import RECEIVER_IDLE_S, DatapathConfig
from conflux.ids import IPAddress
from conflux.link.event import LinkConfig
from conflux.node.patience import OPEN_BYTES, RESUME_BYTES, Bounds
from conflux.node.relaying import FEATURE, NO_IPV6, PUBLIC
from conflux.realm.card import PATIENT
from conflux.stream.resuming import Resumption
from conflux.usage.bound import PACES, Bound, Pace, State

METERED_WEIGHT = 2.0  # of what stays open, where bytes cost money


def features(config: Config, own: Sequence[IPAddress], *, relays: bool) -> tuple[str, ...]:
    """Return what the node's card says of it."""
    says = (PATIENT,) if any(address.version == 6 for address in own) else (NO_IPV6, PATIENT)
    if not relays:
        return says
    return (FEATURE, PUBLIC, *says) if config.relay.public else (FEATURE, *says)


def link_config(config: Config) -> LinkConfig:
    """Return the settings of the links."""
    limits = config.link
    return LinkConfig(dial_count_max=limits.dial_count_max, dial_timeout_s=limits.dial_timeout, linger_s=limits.linger)


def byte_bound(config: Config) -> Bound:
    """Return how many bytes a person allows."""
    return Bound(config.budget.day, config.budget.month, config.budget.month_starts)


def patience_bounds(config: Config, pace: Pace = PACES[State.UNDER]) -> Bounds:
    """Return within what the idle timeout of a stream is chosen.  pace: what the budget stretches."""
    limits = config.stream
    least_s = min(limits.idle_timeout_min, limits.idle_timeout_max)
    return Bounds(
        least_s,
        limits.idle_timeout_max,
        fixed_s=limits.idle_timeout,
        weight=pace.keep_weight * (METERED_WEIGHT if limits.metered else 1.0),
        open_bytes=OPEN_BYTES if limits.resumption == Resumption.OFF else RESUME_BYTES,
    )


def datapath_config(config: Config) -> DatapathConfig:
    """Return the limits of the datapath."""
    return DatapathConfig(
        idle_timeout_s=config.stream.idle_timeout or DatapathConfig().idle_timeout_s,
        receiver_idle_s=RECEIVER_IDLE_S,
        queue_bytes_max=config.stream.queue_bytes,
        queues_bytes_max=max(DatapathConfig().queues_bytes_max, 2 * config.stream.queue_bytes),
        hold_age_s_max=config.stream.queue_age,
        relay_bytes_per_s=config.relay.bytes_per_s,
    )
