"""A destination that is dead beside one at full speed.

alpha --- br0 --- bravo
           |
        charlie        joined, then lost its power
"""

from __future__ import annotations

from topology import Lab


def test_a_dead_destination_slows_nobody_down(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, charlie = (lab.host(name, lan) for name in ("alpha", "bravo", "charlie"))
    realm = lab.realm(alpha, bravo, charlie)
    to_bravo, to_charlie = bravo.overlay_addresses()[1], charlie.overlay_addresses()[1]
    realm.daemons.pop("charlie").kill()
    charlie.unplug()
    assert alpha.ping(to_bravo, "-c", "3", "-i", "0.1").lost == 0, realm.tails()

    alone = alpha.iperf3(bravo, to_bravo, seconds=3)
    ping = alpha.spawn("ping-charlie", "ping", "-n", "-i", "0.05", to_charlie)
    beside = alpha.iperf3(bravo, to_bravo, seconds=3)
    round_trips = alpha.ping(to_bravo, "-c", "20", "-i", "0.05")
    ping.kill()
    assert "time=" not in ping.output()
    # A measurement on a busy machine swings; being held up by the dead one would mean a standstill of seconds.
    assert beside > alone * 0.6, f"alone {alone:.1f}, beside the dead one {beside:.1f} Mbit/s{realm.tails()}"
    assert round_trips.lost == 0
    assert round_trips.median_ms < 50, round_trips
