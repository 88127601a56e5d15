"""A LAN whose access point drops multicast: neighbours are named in the configuration.

alpha --- br0 --- bravo        nftables drops mDNS on both
"""

from __future__ import annotations

from rig.topology import Lab, wait_for

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


def test_boards_without_multicast_that_name_one_hub_find_one_another(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, charlie = (lab.host(name, lan) for name in ("alpha", "bravo", "charlie"))
    for host in (alpha, bravo, charlie):
        host.block_multicast()
    hub = f"{alpha.addresses[0]}:{PORT}"
    realm = lab.realm(alpha)
    token = realm.invite(2)
    for host in (bravo, charlie):
        host.configure({"control.lan": {"peers": [hub]}})
        realm.admit(host, token, "--peer", hub)
    wait_for(
        lambda: any("joins" in channel.detail for channel in alpha.status().control),
        "alpha as the bridge between them",
        within_s=20,
        logs=realm.logs(),
    )
    assert bravo.conflux("ping", "charlie", "-c", "1", check=False).returncode == 0, realm.tails()
