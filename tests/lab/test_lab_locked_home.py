"""The program in a directory that only its owner may enter, as home directories are on Debian.

      alpha --- br0 --- bravo        on bravo, root without capabilities cannot reach the program's files

A daemon started with sudo gives up its capabilities.  Modules that it imported later would be read without them.
"""

from __future__ import annotations

from rig.enter import TREE
from rig.topology import Lab

# The tree as it is, below a directory of mode 0, which root enters only with CAP_DAC_OVERRIDE.
LOCK = f"""
    set -e
    mkdir -p /run/lab/open
    mount --bind {TREE} /run/lab/open
    mount -t tmpfs -o mode=0 locked {TREE}
    for part in .venv conflux; do
        mkdir {TREE}/$part
        mount --bind /run/lab/open/$part {TREE}/$part
    done
    umount /run/lab/open
    exec "$@"
"""


def test_a_daemon_needs_nothing_of_its_program_once_it_is_up(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = lab.realm(alpha, bravo)
    realm.daemons["bravo"].down()
    locked = realm.restart(bravo, "unshare", "--mount", "sh", "-c", LOCK, "sh")
    for source, target in ((alpha, bravo), (bravo, alpha)):
        reply = source.ping(target.overlay_addresses()[1], "-c", "3", "-i", "0.2", "-W", "5")
        assert reply.lost == 0, realm.tails()
    assert "Traceback" not in locked.output()
    locked.down()
