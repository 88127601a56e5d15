"""How much nodes at a broker say when something happens to one of them, or to the broker: each a stated number at most.

A storm is an answer that causes a question that causes the same answer.  Then a number here grows a hundredfold.
"""

from __future__ import annotations

from collections import Counter

import pytest
from kit.world import World

from conflux.control.event import Transmit
from conflux.sim.flights import Weather
from conflux.sim.world import Host

NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet")
ROUGH = Weather(delay_s=0.02, jitter_s=0.02, control_loss=0.1, control_repeat=0.1)

# Envelopes that one node hands to its channels, retries included.
START_MAX = 4  # its presence, at its start and when the channel comes up
PAIR_MAX = 18  # to one peer, until packets flow both ways: card, OPEN, ACCEPT, signals of a link
ABSENT_MAX = 130  # in a minute, for one peer that is away, while packets for it keep coming
RESTORED_MAX = 3  # its presence


class Talk:
    """Hosts at a broker that count what they say.  Each sends packets to the next, and all of them to the first."""

    def __init__(self, count: int, weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: Counter[str] = Counter()
        send = Host._send_envelope

        def counted(host: Host, transmit: Transmit) -> None:
            self.said[host.name] += 1
            send(host, transmit)

        monkeypatch.setattr(Host, "_send_envelope", counted)
        self.world = World(1, weather)
        self.hosts = [self.world.host(name, broker=True) for name in NAMES[:count]]
        nexts = [(host, self.hosts[(number + 1) % count]) for number, host in enumerate(self.hosts)]
        self.pairs = list(dict.fromkeys([*nexts, *((host, self.hosts[0]) for host in self.hosts[1:])]))

    def peers(self, host: Host) -> int:
        """Return with how many others a host talks."""
        return len({frozenset(pair) for pair in self.pairs if host in pair})

    def go_on(self, seconds: int) -> dict[str, int]:
        """Let packets flow, and return how many envelopes each host said meanwhile."""
        self.said.clear()
        for number in range(seconds):
            for a, b in self.pairs:
                if a.node is not None:
                    a.send(b, b"ping %d" % number)
            self.world.run(1.0)
        return {host.name: self.said[host.name] for host in self.hosts}

    def all_reach(self) -> bool:
        """Say whether every packet has an answer now."""
        text = f"{self.world.now}".encode()
        for a, b in self.pairs:
            a.send(b, b"ping " + text)
        return self.world.run(5.0, until=lambda: all(a.payloads(b"pong " + text) for a, _ in self.pairs))

    def broker(self, up: bool) -> None:
        """Take the broker away from everybody, or give it back."""
        for host in self.hosts:
            (self.world.broker.restore if up else self.world.broker.lose)(host.node_id)
        self.world.watch()

    def check(self, said: dict[str, int], pair_max: int, more: int = 0) -> None:
        """Fail if a host said more than that much to each of its peers, and so much more."""
        too_much = {
            host.name: said[host.name] for host in self.hosts if said[host.name] > pair_max * self.peers(host) + more
        }
        assert too_much == {}


@pytest.mark.parametrize("weather", [Weather(), ROUGH], ids=["fair", "rough"])
@pytest.mark.parametrize("count", [2, 10])
def test_nobody_at_a_broker_says_more_than_a_stated_number(count, weather, monkeypatch) -> None:
    talk = Talk(count, weather, monkeypatch)
    first = talk.hosts[0]
    talk.world.run(5.0)
    assert max(talk.said.values()) <= START_MAX
    talk.check(talk.go_on(15), PAIR_MAX)  # of what is lost, the last try comes after 5 s
    assert set(talk.go_on(10).values()) == {0}, "packets that flow need no envelope"

    first.power_off()
    first.power_on()
    talk.check(talk.go_on(20), PAIR_MAX, START_MAX)

    first.power_off(silent=True)
    talk.check(talk.go_on(60), 0, ABSENT_MAX)
    first.power_on()
    talk.check(talk.go_on(40), PAIR_MAX, START_MAX)

    talk.broker(up=False)
    assert set(talk.go_on(20).values()) == {0}
    talk.broker(up=True)
    talk.check(talk.go_on(20), 0, RESTORED_MAX)
    assert talk.all_reach(), talk.world


@pytest.mark.parametrize("count", [2, 10])
def test_nobody_says_more_than_a_stated_number_to_a_node_that_restarts_while_the_broker_is_away(
    count, monkeypatch
) -> None:
    talk = Talk(count, Weather(), monkeypatch)
    first = talk.hosts[0]
    talk.world.run(5.0)
    talk.go_on(10)
    talk.broker(up=False)
    first.power_off(silent=True)
    first.power_on()
    talk.world.broker.lose(first.node_id)
    talk.world.watch()
    talk.check(talk.go_on(60), ABSENT_MAX)
    talk.broker(up=True)
    talk.check(talk.go_on(40), PAIR_MAX, RESTORED_MAX)
    assert talk.all_reach(), talk.world


def test_thirty_boards_that_start_at_once_on_a_lan_say_presence_to_each_neighbour_and_no_more(monkeypatch) -> None:
    said: Counter[str] = Counter()
    send = Host._send_envelope

    def counted(host: Host, transmit: Transmit) -> None:
        said[host.name] += 1
        send(host, transmit)

    monkeypatch.setattr(Host, "_send_envelope", counted)
    world = World(1)
    hosts = [world.host(f"board-{number:02d}") for number in range(30)]
    world.run(20.0)
    assert max(said.values()) <= len(hosts)
    said.clear()
    pairs = list(zip(hosts, [*hosts[1:], hosts[0]], strict=True))
    for a, b in pairs:
        a.send(b, b"ping")
    assert world.run(3.0, until=lambda: all(a.payloads(b"pong") for a, _ in pairs)), world
    assert max(said.values()) <= 2 * PAIR_MAX
