"""A simulated world whose members are of the tests' realm."""

from __future__ import annotations

from kit.builders import NOW_UNIX, make_credential, make_realm, node_keys

from conflux.realm.credential import BRIDGE, RELAY, Chain
from conflux.realm.member import Member
from conflux.sim import world
from conflux.sim.flights import Weather

REALM = make_realm("sim")


def relay(name: str, *more: str) -> Member:
    """Return a member that may relay, and more, whose keys its name determines."""
    return Member(node_keys(name), REALM.anchor, Chain(make_credential(REALM, name, capabilities=(RELAY, *more)), None))


class World(world.World):
    """A world of relays, on the day of the tests.  bridges: the names of those that may join a LAN and the broker."""

    def __init__(self, seed: int, weather: Weather | None = None, *, bridges: tuple[str, ...] = ()) -> None:
        super().__init__(
            seed,
            weather,
            members=lambda name: relay(name, BRIDGE) if name in bridges else relay(name),
            now_unix=NOW_UNIX,
        )
