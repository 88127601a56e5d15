"""Three boards, the middle one on both LANs: what `status`, `ip` and `hosts` say of the others, and that names resolve.

alpha ──a── rod ──b── bravo
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from rig.joined_lans import ONE_RELAY, JoinedLans
from rig.topology import SETTINGS, Host, Lab, wait_for

from conflux.api import rows
from conflux.api.nodes import PeerRow

HEARD_S_MAX = 45.0  # neighbours exchange a ping every 32 s

SERVE = """
import socket
with socket.create_server(("::", 7000), family=socket.AF_INET6) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    connection.sendall(b"hello")
"""
FETCH = "import socket; print(socket.create_connection(('bravo', 7000), 20).recv(5).decode())"


@pytest.fixture(scope="module")
def lans() -> Iterator[JoinedLans]:
    """The boards, with a stream each way between the ends."""
    lab = Lab(SETTINGS)
    joined = JoinedLans(lab, ONE_RELAY)
    alpha, bravo = joined["alpha"], joined["bravo"]
    alpha.first_answer_ms(bravo.overlay_addresses()[1])
    yield joined
    lab.close()


def peers(host: Host) -> dict[str, PeerRow]:
    return {row.name: row for row in host.status().nodes}


def test_every_board_says_who_is_there_by_which_way_with_addresses_and_bytes(lans: JoinedLans) -> None:
    addresses = {name: lans[name].overlay_addresses() for name in ("alpha", "rod", "bravo")}
    at_alpha = peers(lans["alpha"])
    assert set(at_alpha) == {"rod", "bravo"}
    assert (at_alpha["rod"].reach, at_alpha["rod"].by) == ("lan", ())
    assert (at_alpha["bravo"].reach, at_alpha["bravo"].by) == ("relay", ("rod",))
    for name, row in at_alpha.items():
        assert (row.ipv4, row.ipv6) == addresses[name]
        assert row.heard_at is not None
        assert abs(time.time() - row.heard_at) < HEARD_S_MAX
        assert (row.expires_at or 0) > time.time() + 86400
    assert at_alpha["bravo"].sent_bytes > 100
    assert at_alpha["bravo"].received_bytes > 100
    at_rod = peers(lans["rod"])
    assert {name: row.reach for name, row in at_rod.items()} == {"alpha": "lan", "bravo": "lan"}
    assert {row.sent_bytes for row in at_rod.values()} == {0}, "what passes through is nobody's traffic with rod"


def test_bytes_of_a_node_outlive_its_stream(lans: JoinedLans) -> None:
    alpha = lans["alpha"]
    before = peers(alpha)["bravo"]
    lans.realm.await_idle(within_s=60)
    after = peers(alpha)["bravo"]
    assert after.state is None
    assert after.sent_bytes >= before.sent_bytes > 0
    assert (after.reach, after.by) == ("relay", ("rod",)), "without a stream, by who brought its last message"


def test_the_text_begins_with_the_nodes_and_fits_the_terminal(lans: JoinedLans) -> None:
    alpha = lans["alpha"]
    for columns in (80, 40):
        width = f"COLUMNS={columns}"
        text = alpha.run("env", width, lans.lab.program, "status", "--config", alpha.configured()).stdout
        assert max(map(len, text.splitlines())) <= columns
        assert text.index("bravo") < text.index("rod") < text.index("this node")
        assert "\x1b" not in text
    assert all(address in text for host in ("rod", "bravo") for address in lans[host].overlay_addresses())


def test_ip_prints_what_the_device_has_even_of_a_node_that_was_never_met(lans: JoinedLans) -> None:
    alpha = lans["alpha"]
    for name in ("bravo", "rod"):
        ipv4, ipv6 = lans[name].overlay_addresses()
        assert alpha.conflux("ip", name).stdout == f"{ipv6}\n{ipv4}\n"
        assert alpha.conflux("ip", "-4", f"{name.upper()}.local").stdout == f"{ipv4}\n"
    ipv4, ipv6 = alpha.overlay_addresses()
    assert alpha.conflux("ip").stdout == f"{ipv6}\n{ipv4}\n"
    refused = alpha.conflux("ip", "nobody", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "nobody" in refused.stderr


def test_a_program_reaches_a_board_by_its_name_with_the_lines_of_hosts(lans: JoinedLans) -> None:
    alpha, bravo = lans["alpha"], lans["bravo"]
    lines = alpha.conflux("hosts").stdout
    assert [line.split("\t")[1] for line in lines.splitlines()] == ["alpha"] * 2 + ["bravo"] * 2 + ["rod"] * 2
    assert alpha.conflux("hosts").stdout == lines
    file = alpha.state / "hosts"
    file.write_text("127.0.0.1\tlocalhost\n" + lines)
    serving = bravo.spawn("server", "python3", "-u", "-c", SERVE)
    wait_for(lambda: "listening" in serving.output(), "the server listening", within_s=10, logs=(serving,))
    script = f'mount --bind {file} /etc/hosts && getent ahosts bravo && python3 -c "{FETCH}"'
    said = alpha.run("unshare", "--mount", "sh", "-c", script, within_s=60).stdout
    assert all(address in said for address in bravo.overlay_addresses())
    assert said.endswith("hello\n")


def test_answers_have_the_keys_that_the_page_lists(lans: JoinedLans) -> None:
    alpha = lans["alpha"]
    assert len(alpha.status().nodes) == 2  # Status, or it would not have been read
    assert alpha.ask(rows.Streams, "streams").streams == alpha.status().streams


def test_a_board_that_is_switched_off_has_left_the_lan(lans: JoinedLans) -> None:
    alpha = lans["alpha"]
    lans.realm.daemons["rod"].down()
    wait_for(lambda: peers(alpha)["rod"].left_at is not None, "rod gone", within_s=10, logs=lans.realm.logs())
    row = peers(alpha)["rod"]
    assert (row.reach, row.ipv6) == (None, lans["rod"].conflux("ip", check=False).stdout.strip() or row.ipv6)
    assert row.left_at is not None
    assert abs(time.time() - row.left_at) < 15
    assert peers(alpha)["bravo"].reach is None
    text = alpha.conflux("status").stdout
    assert "left the LAN" in text
    assert "not now" in text
