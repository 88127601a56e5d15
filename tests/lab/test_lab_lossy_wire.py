"""A wire that loses packets, as Wi-Fi at the edge of its reach does.

alpha --- br0 --- bravo        each loses one arriving UDP packet in twenty
"""

from __future__ import annotations

from rig.topology import Lab


def test_a_link_comes_up_and_repairs_its_loss(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = lab.realm(alpha, bravo)
    for host in (alpha, bravo):
        host.lose(50)
    reply = alpha.ping(bravo.overlay_addresses()[1], "-c", "100", "-i", "0.05", "-W", "5")
    # Without Conflux about one ping in ten would be lost; a tether retransmits for a while, so hardly any is.
    assert reply.lost <= 3, f"{reply.lost} of {reply.sent} lost{realm.tails()}"
