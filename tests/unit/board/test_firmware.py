"""The files of firmware/tree and the programs that go with them say the same."""

from __future__ import annotations

import re

import pytest
from kit.tree import TREE

from conflux.board import daemon_file, firstboot, wifi
from conflux.board.places import Places, shared_of
from conflux.board.watch import SOCKET
from conflux.config.place import SOCKET as DAEMON_SOCKET
from conflux.config.settings import Config
from conflux.host import notices
from conflux.web import measured

FIRMWARE = TREE / "firmware/tree"
UNITS = FIRMWARE / "usr/lib/systemd/system"
PLACES = Places()
OWN_UNITS = sorted(path for path in UNITS.glob("conflux-board*.service"))


def read(path: str) -> str:
    return (FIRMWARE / path).read_text()


def test_the_firewall_lets_in_what_the_daemon_and_the_page_listen_on_by_default():
    opened = re.search(r"set tcp_open \{[^}]*elements = \{ ([^}]*) \}", read("etc/nftables.conf"))
    assert opened is not None
    default = Config()
    assert {int(port) for port in opened[1].split(", ")} == {22, default.control.lan.port, default.page.port}
    assert set(firstboot.PORTS) == {default.control.lan.port, default.page.port}
    assert f'elements = {{ "{default.tun.name}" }}' in read("etc/nftables.conf")
    assert default.tun.name == firstboot.OVERLAY
    assert f'include "{PLACES.run}/nftables/*.nft"' in read("etc/nftables.conf")


def test_what_is_not_let_in_is_dropped():
    assert read("etc/nftables.conf").count("policy drop;") == 2


def test_sshd_takes_the_keys_of_the_card_and_no_password():
    text = read("etc/ssh/sshd_config.d/conflux-board.conf")
    assert f"HostKey {PLACES.own}/ssh/{firstboot.HOST_KEY}\n" in text
    assert f"AuthorizedKeysFile {PLACES.own}/ssh/authorized_keys\n" in text
    assert "PasswordAuthentication no\n" in text
    assert f"ConditionPathExists={PLACES.own}/ssh/authorized_keys\n" in read(
        "usr/lib/systemd/system/ssh.service.d/conflux-board.conf"
    )


@pytest.mark.parametrize("unit", OWN_UNITS, ids=lambda path: path.stem)
def test_every_unit_is_turned_on_and_every_program_of_it_is_there(unit):
    text = unit.read_text()
    assert f"enable {unit.name}\n" in read("usr/lib/systemd/system-preset/50-conflux-board.preset")
    for module in re.findall(r"-m (conflux\.[a-z_.]+)", text):
        assert (TREE / module.replace(".", "/")).with_suffix(".py").is_file()
    for program in re.findall(r"ExecStart=(/usr/lib/conflux-board/\S+)", text):
        assert (FIRMWARE / program.lstrip("/")).is_file()


def test_units_look_where_first_boot_writes():
    assert f"ConditionPathExists={PLACES.own}/wifi.conf\n" in (UNITS / "conflux-board-wifi.service").read_text()
    assert f"ConditionPathExists={PLACES.run}/console-root\n" in (UNITS / "conflux-board-console.service").read_text()
    assert (FIRMWARE / "etc/localtime").readlink() == PLACES.run / "localtime"
    assert (
        f"/run/{re.search('RuntimeDirectory=(.*)', (UNITS / 'conflux-board-wifi.service').read_text())[1]}"
        == wifi.CONTROL
    )


def test_first_boot_ends_by_itself_and_the_page_sees_nothing_of_the_data_partition():
    assert "TimeoutStartSec=infinity\n" in (UNITS / "conflux-board.service").read_text()
    page = (UNITS / "conflux-page.service.d/conflux-board.conf").read_text()
    assert f"InaccessiblePaths=-{PLACES.data}\n" in page
    shared = {str(each.at) for each in shared_of(read("usr/lib/conflux-board/state.list"))}
    assert str(measured.PLACE) in shared, "the page reads the report where it is shared"


def test_notices_are_where_the_daemon_looks():
    assert PLACES.notices == notices.PLACE
    assert str(SOCKET) == str(DAEMON_SOCKET)


def test_the_state_of_the_daemon_and_its_configuration_are_shared_by_both_slots():
    shared = {str(each.at): PLACES.data / each.place for each in shared_of(read("usr/lib/conflux-board/state.list"))}
    assert shared["/var/lib/conflux"] == PLACES.state
    assert shared["/etc/conflux"] == PLACES.configuration.parent


def test_both_network_devices_have_a_network_and_the_page():
    for name, file in zip(daemon_file.INTERFACES, ("80-wired", "81-wireless"), strict=True):
        text = read(f"etc/systemd/network/{file}.network")
        assert {"DHCP=yes", "LinkLocalAddressing=yes", "MulticastDNS=yes", "ClientIdentifier=mac"} <= set(
            text.split("\n")
        )
        assert name.startswith({"80-wired": "eth", "81-wireless": "wlan"}[file])
    assert "NamePolicy=keep kernel\n" in read("etc/systemd/network/99-default.link")


def test_the_initramfs_reads_the_machine_id_that_first_boot_keeps():
    text = read("etc/initramfs-tools/scripts/local-bottom/conflux-board")
    assert f"/seen/{PLACES.own.name}/{firstboot.MACHINE_ID}" in text
    assert f"place={PLACES.run}\n" in text


def test_nothing_of_one_board_is_in_the_tree():
    names = {path.name for path in FIRMWARE.rglob("*") if path.is_file()}
    assert not names & {"machine-id", "random-seed", "authorized_keys", "node.key"}
    assert not any(name.startswith("ssh_host_") for name in names)
