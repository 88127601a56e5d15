"""The child process that configures the TUN device."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from signal import SIGKILL

import pytest

from conflux.errors import UserError
from conflux.host import netlink

CONFIG = netlink.DeviceConfig(
    "conflux-none",
    4000,
    (IPv6Address("fd00::1"), IPv4Address("100.64.0.1")),
    (IPv6Network("fd00::/64"), IPv4Network("100.64.0.0/16")),
)


def test_a_problem_of_the_child_is_an_error_for_a_person():
    with pytest.raises(UserError, match=r"^cannot set up conflux-none: find the device: it has vanished$"):
        netlink.Child().configure(CONFIG)


def test_a_child_that_cannot_be_started_is_an_error_for_a_person(monkeypatch, tmp_path):
    monkeypatch.setattr(netlink.sys, "executable", str(tmp_path / "gone"))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^cannot set up conflux-none: .*No such file"):
        netlink.Child().configure(CONFIG)


def test_a_child_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(netlink, "CHILD_TIMEOUT_S", 0)
    with pytest.raises(UserError, match="the program that does it hangs"):
        netlink.Child().configure(CONFIG)


def test_a_child_that_was_started_before_configures_the_device_it_is_told_of():
    with netlink.Child() as child:
        child.start()
        with pytest.raises(UserError, match="it has vanished"):
            child.configure(CONFIG)


def test_a_child_that_is_not_needed_ends_with_the_block():
    with netlink.Child() as child:
        child.start()
        assert child._process is not None
        process = child._process
    assert process.returncode == -SIGKILL
    assert process.stdin is not None
    assert process.stdin.closed
