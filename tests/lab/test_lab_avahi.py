"""Beside a running avahi-daemon, as on every Raspberry Pi OS.

alpha --- br0 --- bravo        each runs avahi-daemon, which holds UDP port 5353 first
"""

from __future__ import annotations

import shutil

from rig.enter import TREE
from rig.topology import Host, Lab, Process, wait_for

UNPACKED = TREE / "build" / "avahi"  # .ci/prepare unpacks it here on a machine that has none

CONFIGURATION = """\
[server]
host-name={name}
use-ipv4=yes
use-ipv6=yes
enable-dbus=no
[publish]
publish-workstation=yes
"""


def test_neighbours_find_each_other_beside_avahi(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    responders = [start_avahi(alpha), start_avahi(bravo)]
    realm = lab.realm(alpha, bravo)
    reply = alpha.ping(bravo.overlay_addresses()[1], "-c", "3", "-i", "0.3", "-W", "5")
    assert reply.lost == 0, realm.tails()
    for avahi in responders:
        assert avahi.exit_code is None, avahi.tail()
        assert "conflict" not in avahi.output().lower()


def start_avahi(host: Host) -> Process:
    """Start avahi-daemon on host and return it when it serves the LAN."""
    configuration = host.state / "avahi-daemon.conf"
    configuration.write_text(CONFIGURATION.format(name=host.name))
    program = shutil.which("avahi-daemon") or UNPACKED / "usr/sbin/avahi-daemon"
    libraries = ":".join(str(path) for lib in ("lib", "usr/lib") for path in UNPACKED.glob(f"{lib}/*-linux-gnu"))
    # Its PID file has a fixed place, and it looks up a user of its own even when it stays root.
    script = """
        set -e
        mkdir -p /run/avahi-daemon && mount -t tmpfs tmpfs /run/avahi-daemon
        for table in passwd group; do
            echo "avahi:x:0:" >"$1.$table"
            [ $table = group ] || echo "avahi:x:0:0::/:/bin/false" >"$1.$table"
            mount --bind "$1.$table" /etc/$table
        done
        shift; exec "$@"
    """
    options = ("--no-drop-root", "--no-chroot", "--no-rlimits", "--file", configuration)
    avahi = host.spawn(
        "avahi",
        *("unshare", "--mount", "sh", "-c", script, "sh", configuration, program, *options),
        environment={"LD_LIBRARY_PATH": libraries},
    )
    wait_for(
        lambda: f"Host name is {host.name}.local" in avahi.output() or "startup complete" in avahi.output(),
        f"{host.name}: avahi-daemon serving",
        within_s=15,
        logs=(avahi,),
    )
    return avahi
