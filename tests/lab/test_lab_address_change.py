"""A board gets other addresses while a stream is up: what ran from the old ones is opened anew at once.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import re
import time
from itertools import pairwise

from rig.topology import Host, Lab, Process, Watch, wait_for

from conflux.control.lan.config import HANDSHAKE_S
from conflux.daemon.roaming import GONE_S

SILENCE_S_MAX = 2.0  # 0.3 s as a rule; more on a busy machine
LOOK_S = 2.5  # how long the silence is looked for


def replies(ping: Process) -> list[float]:
    """Return when each reply came, in Unix seconds."""
    return [float(at) for at in re.findall(r"^\[([0-9.]+)\] \d+ bytes from ", ping.output(), re.MULTILINE)]


def silence_s(ping: Process, since: float) -> float:
    """Return the longest time without a reply, from then on."""
    times = [since, *(at for at in replies(ping) if at > since), time.time()]
    return max(later - earlier for earlier, later in pairwise(times))


def readdress(host: Host, *new: str) -> float:
    """Replace the addresses of a host by others, an IPv4 and an IPv6 one; return when, in Unix seconds."""
    words = [
        f"ip addr {verb} {address}/{64 if ':' in address else 24} dev eth0 {'nodad' if ':' in address else ''}"
        for verb, addresses in (("del", host.addresses), ("add", new))
        for address in addresses
    ]
    at = time.time()
    host.run("sh", "-c", " && ".join(words))
    host.addresses[:] = new
    return at


def is_steady(host: Host) -> bool:
    """Say whether the control connection of a host is older than a race between two of them lasts."""
    return all(row.age_s > HANDSHAKE_S for row in host.status().control[0].neighbours)


def test_stream_goes_on_at_once_from_other_addresses_and_undisturbed_from_those_that_come_back(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = lab.realm(alpha, bravo)
    pings = [
        host.spawn("ping", "ping", "-D", "-n", "-i", "0.1", to.overlay_addresses()[1])
        for host, to in ((alpha, bravo), (bravo, alpha))
    ]
    wait_for(lambda: all(len(replies(ping)) > 2 for ping in pings), "replies", within_s=10, logs=tuple(pings))
    wait_for(lambda: is_steady(alpha), "an old connection", within_s=10, logs=realm.logs())
    watch = Watch(alpha)
    wait_for(watch.connected, "conflux watch connecting", within_s=5)
    readdress(alpha, *alpha.addresses)  # as a client of DHCP may do
    time.sleep(2 * GONE_S)
    assert "closed" not in [event.event for event in watch.new()], realm.tails()
    at = readdress(alpha, "10.7.1.201", "fd00:7:1::201")
    time.sleep(LOOK_S)
    found = [silence_s(ping, at) for ping in pings]
    assert max(found) < SILENCE_S_MAX, realm.tails()
    assert "address-gone" in [event.said for event in watch.new()], realm.tails()
    print(f"silence {max(found):.2f} s")
