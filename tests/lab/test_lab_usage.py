"""What `conflux usage` counts beside what the kernel counted at the interface; a restart, a bound, a damaged file.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from rig.topology import Host, Lab, Realm, wait_for

from conflux.api.usage import SpanRow, Usage

ETHERNET_BYTES = 14  # of each packet; the daemon counts from IP on
SHARE_MAX = 0.05
SETTLED_S = 4.0


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    """Two boards; a bound that is soon reached."""
    lab = Lab({"budget": {"day": "2 MB"}})
    lan = lab.lan()
    yield lab.realm(lab.host("alpha", lan), lab.host("bravo", lan))
    lab.close()


@pytest.fixture(scope="module")
def alpha(realm: Realm) -> Host:
    """The board that asks."""
    return realm.root


@pytest.fixture(scope="module")
def bravo(realm: Realm) -> str:
    """The address of the board that is asked."""
    return realm.root.lab.hosts["bravo"].overlay_addresses()[1]


def ip_bytes(host: Host) -> tuple[int, int]:
    """What the kernel sent and received on the interface, as IP packets."""
    wire = host.wire()
    return wire.tx_bytes - ETHERNET_BYTES * wire.tx_packets, wire.rx_bytes - ETHERNET_BYTES * wire.rx_packets


def today(host: Host) -> SpanRow:
    """What its daemon says of today."""
    return host.ask(Usage, "usage").today


def counted(span: SpanRow) -> tuple[int, int]:
    """What passed, both ways."""
    return span.sent_bytes, span.received_bytes


def parts(span: SpanRow) -> dict[str, int]:
    """What passed of each kind."""
    return {row.kind: row.sent_bytes + row.received_bytes for row in span.kinds}


def test_the_sum_is_what_the_kernel_counted(alpha: Host, bravo: str) -> None:
    time.sleep(SETTLED_S)
    for options in (("-c", "3", "-i", "0.2"), ("-c", "100", "-i", "0.01", "-s", "3000")):
        before, wire_before = today(alpha), ip_bytes(alpha)
        alpha.ping(bravo, *options, "-W", "5")
        time.sleep(SETTLED_S)
        after, wire_after = today(alpha), ip_bytes(alpha)
        passed = [now - then for now, then in zip(counted(after), counted(before), strict=True)]
        wire = [now - then for now, then in zip(wire_after, wire_before, strict=True)]
        kinds = {kind: count - parts(before)[kind] for kind, count in parts(after).items()}
        print(f"counted {passed}, by the kernel {wire}, {kinds}")
        assert passed == pytest.approx(wire, rel=SHARE_MAX)
        assert sum(kinds.values()) == sum(passed)
    assert kinds["data"] > 2 * 100 * 3000, "both ways"


def test_the_peer_is_named_and_has_nearly_all(alpha: Host) -> None:
    usage = alpha.ask(Usage, "usage")
    assert usage.peers[0].name == "bravo"
    assert usage.peers[0].today_bytes > 0.8 * (usage.today.sent_bytes + usage.today.received_bytes)


def test_a_bound_that_is_passed_is_a_warning_and_stops_nothing(alpha: Host, bravo: str) -> None:
    assert alpha.status().budget.state == "under"
    alpha.ping(bravo, "-c", "250", "-i", "0.01", "-s", "3000", "-W", "5")
    wait_for(lambda: alpha.status().budget.state == "over", "the bound is passed", within_s=20)
    assert any(text.startswith("budget-over") for text in alpha.status().warnings)
    assert alpha.ping(bravo, "-c", "3", "-i", "0.2", "-W", "5").received == 3
    (alpha.config).write_text(alpha.config.read_text().replace("2 MB", "200 MB"))
    alpha.conflux("reload")
    assert alpha.status().budget.state == "under"
    assert not alpha.status().warnings


def test_counts_survive_a_restart_and_a_damaged_file_is_set_aside(alpha: Host, realm: Realm) -> None:
    before = sum(counted(today(alpha)))
    realm.daemons["alpha"].down()
    (file,) = alpha.state.rglob("usage")
    realm.restart(alpha)
    assert before <= sum(counted(today(alpha))) < before + 200_000
    realm.daemons["alpha"].down()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    realm.restart(alpha)
    assert sum(counted(today(alpha))) < 200_000
    assert any(text.startswith("usage-lost") for text in alpha.status().warnings)
    assert file.with_name("usage.damaged").read_bytes() == data
