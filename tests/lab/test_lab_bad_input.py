"""Real daemons and commands answer bad input with one clear line, never with a traceback, and leave nothing half done.

alpha --- br0 --- bravo, mallory        alpha is the realm's root; mallory belongs to another realm
"""

from __future__ import annotations

import subprocess
import time

import pytest
from rig.topology import CONFLUX, Host, Lab, Realm, wait_for

PORT = 7464


class Site:
    """A LAN with a realm of one, where guests try to join."""

    def __init__(self, lab: Lab) -> None:
        self.lan = lab.lan()
        self.lab = lab
        self.alpha = lab.host("alpha", self.lan)
        self.realm = lab.realm(self.alpha)
        self.guests = 0

    def guest(self) -> Host:
        """Return a host on the LAN that is in no realm yet."""
        self.guests += 1
        return self.lab.host(f"guest{self.guests}", self.lan)


@pytest.fixture(scope="module")
def site(shared_lab: Lab) -> Site:
    """The site, for every test of this file."""
    return Site(shared_lab)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """Check that a command failed and ended in one line for a person, with these words; return the line."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "a bug:" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("conflux: ")]  # the rest is the daemon's log
    assert told == done.stderr.splitlines()[-1:], done.stderr
    for word in words:
        assert word in told[0], told[0]
    return told[0]


def flipped(token: str) -> str:
    """Return the token with one character in its middle changed."""
    at = len(token) // 2
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_mistyped_token_is_refused(site: Site) -> None:
    guest = site.guest()
    refused(guest.conflux("join", flipped(site.realm.invite()), "--name", "guest", check=False))
    refused(guest.conflux("join", "cfx1nonsense", "--name", "guest", check=False), "damaged")
    assert not list((guest.state / "state").glob("*chain*"))


def test_a_used_token_is_refused_and_the_guest_may_try_another(site: Site) -> None:
    first, second = site.guest(), site.guest()
    token = site.realm.invite()
    first.conflux("join", token, "--name", first.name)
    refused(second.conflux("join", token, "--name", second.name, check=False), "used")
    second.conflux("join", site.realm.invite(), "--name", second.name)


def test_an_expired_token_is_refused(site: Site) -> None:
    guest = site.guest()
    token = site.realm.invite(1, "--ttl", "1s")
    expires = time.time() + 2
    wait_for(lambda: time.time() > expires, "the token expiring", within_s=5)
    refused(guest.conflux("join", token, "--name", guest.name, check=False), "expired")


def test_a_token_whose_issuer_is_not_there_is_refused_in_time(lab: Lab) -> None:
    root, guest = lab.host("root", lab.lan("here")), lab.host("guest", lab.lan("elsewhere"))
    root.conflux("realm", "create", "elsewhere", "--node", "root")
    token = root.conflux("realm", "invite", "--quiet").stdout.split()[-1]
    refused(guest.conflux("join", token, "--name", "guest", check=False, within_s=60))


def test_a_member_cannot_join_twice(site: Site) -> None:
    refused(site.alpha.conflux("join", site.realm.invite(), "--name", "again", check=False))
    refused(site.alpha.conflux("realm", "create", "again", "--node", "again", check=False))


# --- strangers --------------------------------------------------------------------------------------------------


def test_a_node_of_a_foreign_realm_gets_nowhere(site: Site) -> None:
    mallory = site.guest()
    mallory.configure({"control.lan": {"peers": [f"{site.alpha.addresses[0]}:{PORT}"]}})
    foreign = Realm(mallory, "foreign")
    alpha_ipv6 = site.alpha.overlay_addresses()[1]
    mallory.run("ip", "route", "add", f"{alpha_ipv6}/128", "dev", "conflux0")
    assert mallory.ping(alpha_ipv6, "-c", "3", "-i", "0.5", "-W", "3").received == 0
    assert not site.realm.daemons["alpha"].sockets()
    assert foreign.daemons[mallory.name].exit_code is None
    assert site.realm.daemons["alpha"].exit_code is None


def test_noise_on_the_control_port_is_survived(site: Site) -> None:
    guest = site.guest()
    noise = (
        "import os, socket\n"
        f"for size in (0, 1, 100, 70000) * 5:\n"
        f"    with socket.create_connection(('{site.alpha.addresses[0]}', {PORT}), 5) as peer:\n"
        "        try:\n"
        "            peer.sendall(os.urandom(size))\n"
        "        except OSError:\n"
        "            pass\n"
    )
    guest.run("python", "-c", noise)
    assert site.realm.daemons["alpha"].exit_code is None
    assert "Traceback" not in site.realm.daemons["alpha"].output()
    guest.conflux("join", site.realm.invite(), "--name", guest.name)


# --- the machine ------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_state_directory_is_refused(site: Site) -> None:
    said = refused(site.alpha.conflux("up", check=False))
    assert str(site.realm.daemons["alpha"].pid) in said
    assert site.realm.daemons["alpha"].exit_code is None


def test_a_config_typo_is_named_with_its_line(site: Site) -> None:
    guest = site.guest()
    guest.config.write_text("[stream]\nidle_timeot = 15\n")
    refused(guest.conflux("up", check=False), f"{guest.config}:2:", "idle_timeot", "idle_timeout")


def test_without_tun_the_daemon_says_so(site: Site) -> None:
    guest = member(site)
    hidden = f"mount -t tmpfs tmpfs /dev/net && exec {CONFLUX} up --config {guest.config}"
    refused(guest.run("unshare", "--mount", "sh", "-c", hidden, check=False), "/dev/net/tun")


def test_without_privilege_the_daemon_says_so(site: Site) -> None:
    guest = member(site)
    done = guest.run("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", CONFLUX, "up", "--config",
                     guest.config, check=False)  # fmt: skip
    refused(done, "CAP_NET_ADMIN")


def test_a_taken_port_is_named(site: Site) -> None:
    guest = member(site)
    occupy = (
        f"import socket, time\ns = socket.create_server(('', {PORT}))\nprint('listening', flush=True)\ntime.sleep(600)"
    )
    occupier = guest.spawn("occupier", "python", "-c", occupy)
    wait_for(lambda: "listening" in occupier.output(), "the port taken", within_s=5, logs=(occupier,))
    refused(guest.conflux("up", check=False), str(PORT))
    assert "conflux0" not in guest.run("ip", "link").stdout
    occupier.kill()
    guest.daemon().down()


def test_a_kill_at_any_moment_of_joining_leaves_a_state_that_works(site: Site) -> None:
    guest = site.guest()
    token = site.realm.invite(20)
    for delay_ms in (50, 150, 250, 350, 450, 600):
        joining = guest.spawn("join", CONFLUX, "join", token, "--name", guest.name, "--config", guest.configured())
        guest.run("sleep", str(delay_ms / 1000))
        joining.kill()
        assert "Traceback" not in joining.output()
    done = guest.conflux("join", token, "--name", guest.name, check=False)
    assert done.returncode == 0 or "already" in done.stderr, done.stderr
    daemon = guest.daemon()
    assert guest.ping(site.alpha.overlay_addresses()[1], "-c", "2", "-i", "0.5", "-W", "5").received, daemon.tail()
    daemon.down()


def member(site: Site) -> Host:
    """Return a host that has joined and whose daemon is not running."""
    guest = site.guest()
    guest.conflux("join", site.realm.invite(), "--name", guest.name)
    return guest
