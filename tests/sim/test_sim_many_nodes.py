"""A hundred nodes in one thread, by seed."""

from __future__ import annotations

from kit.world import World

from conflux.sim.world import Host

HOST_COUNT = 100


def test_a_hundred_nodes_in_one_thread_talk_and_leave_nothing() -> None:
    world = World(42)
    hosts = [world.host(f"node-{number:03d}") for number in range(HOST_COUNT)]
    world.run(3.0)
    pairs: list[tuple[Host, Host]] = []
    for host in hosts:
        other = world.rng.choice([candidate for candidate in hosts if candidate is not host])
        pairs.append((host, other))
        world.at(
            world.rng.random() * 5.0, lambda host=host, other=other: host.send(other, b"ping " + host.name.encode())
        )
    assert world.run(15.0, until=lambda: all(has_answer(host) for host, _ in pairs)), world
    world.run(30.0)
    assert all(host.endpoints == {} for host in hosts)


def has_answer(host: Host) -> bool:
    return b"pong " + host.name.encode() in host.payloads(b"pong")


def test_the_same_seed_tells_the_same_story() -> None:
    assert story(7) == story(7)


def story(seed: int) -> list[tuple[float, str, str]]:
    """Return the events of three hosts; signatures and keys differ between runs, the events do not."""
    world = World(seed)
    hosts = [world.host(name) for name in ("alpha", "bravo", "charlie")]
    world.run(3.0)
    for a in hosts:
        for b in hosts:
            if a is not b:
                a.send(b, b"ping")
    world.run(30.0)
    return [(round(at, 6), host.name, event.kind) for host in hosts for at, event in host.events]
