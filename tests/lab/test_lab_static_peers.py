"""A LAN whose access point drops multicast: neighbours are named in the configuration.

alpha --- br0 --- bravo        nftables drops mDNS on both
"""

from __future__ import annotations

from topology import Lab

PORT = 7464


def test_static_peers_replace_multicast(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    for host in (alpha, bravo):
        host.block_multicast()
    bravo.configure({"control.lan": {"peers": [f"{alpha.addresses[0]}:{PORT}"]}})
    realm = lab.realm(alpha)
    realm.admit(bravo, realm.invite(), "--peer", f"[{alpha.addresses[1]}]:{PORT}")
    for source, target in ((alpha, bravo), (bravo, alpha)):
        reply = source.ping(target.overlay_addresses()[1], "-c", "3", "-i", "0.3", "-W", "5")
        assert reply.lost == 0, realm.tails()
