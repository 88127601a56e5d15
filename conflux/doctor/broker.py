"""The check of the broker: what `conflux control check` does."""

from __future__ import annotations

import time
from collections.abc import Iterator

from conflux.broker import ask
from conflux.broker.check import check
from conflux.doctor.finding import AS_ROOT, Check, Finding, bad, good, unseen
from conflux.doctor.subject import Subject
from conflux.errors import ConfigError, StateError


def broker(seen: Subject) -> Iterator[Finding]:
    """Connect to each server as this node, and judge it; takes seconds where one is silent."""
    settings = seen.config.control.nats
    if not settings.enabled:
        yield good(Check.BROKER, "control.nats is switched off")
    elif seen.state is None or seen.member is None:
        yield unseen(Check.BROKER, "this node's credential cannot be read", AS_ROOT)
    else:
        try:
            known = ask.known(settings, seen.state, seen.member)
            if known is None:
                yield good(Check.BROKER, "none is configured or announced, and none is needed on a LAN")
                return
            floor = seen.state.floor_unix()
        except (ConfigError, StateError) as error:
            yield bad(Check.BROKER, str(error), "sudo conflux config check")
            return
        for each in check(known, seen.member, floor_unix=floor, now_unix=int(time.time())):
            if each.is_wrong:
                yield bad(Check.BROKER, f"{each.where}: {each.text}", "sudo conflux control check")
            elif each.where != "clock":
                yield good(Check.BROKER, f"{each.where}: {each.text}")
