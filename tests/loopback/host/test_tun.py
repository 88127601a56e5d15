"""The TUN device: batches, drops and errors, with a socket pair in place of the kernel's queue."""

import asyncio
import errno
import os
import socket
import stat

import pytest

from conflux.errors import UserError
from conflux.host import tun
from conflux.host.tun import Tun


@pytest.fixture
def pair():
    ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    device = Tun("conflux9", ours.detach())
    yield device, far
    device.close()
    far.close()


def test_packets_are_handed_over_whole_and_in_order(pair):
    device, far = pair
    got = []

    async def read():
        done = asyncio.Event()

        def deliver(packet):
            got.append(packet)
            if len(got) == 3:
                done.set()

        device.start(deliver, lambda why: None)
        for packet in (b"one", b"t" * 1500, b"three"):
            far.send(packet)
        await asyncio.wait_for(done.wait(), 5)

    asyncio.run(read())
    assert got == [b"one", b"t" * 1500, b"three"]
    assert device.read_count == 3


def test_one_wake_up_reads_a_bounded_batch(pair, monkeypatch):
    monkeypatch.setattr(tun, "READ_COUNT_MAX", 4)
    device, far = pair
    got = []
    device._deliver = got.append
    for number in range(10):
        far.send(bytes([number]))
    device._readable()
    assert len(got) == 4


def test_a_full_queue_is_a_counted_drop(pair):
    device, _ = pair
    while device.write(bytes(1280)):
        pass
    assert device.drops == {"tun-full": 1}
    assert device.written_count > 0


def test_a_packet_the_kernel_refuses_is_a_counted_drop(pair, monkeypatch):
    device, _ = pair

    def refuse(fd, packet):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "write", refuse)
    assert not device.write(b"x")
    assert device.drops == {"tun-refused": 1}


def test_a_closed_device_takes_nothing_and_closes_once(pair):
    device, _ = pair
    device.close()
    device.close()
    assert not device.write(b"x")
    assert device.drops == {"tun-closed": 1}


def test_a_removed_device_is_told_once(pair, monkeypatch):
    device, _ = pair
    why = []

    def gone(fd, size):
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    device._deliver, device._lost = (lambda packet: None), why.append
    monkeypatch.setattr(os, "read", gone)
    device._readable()
    assert why == ["conflux9 was removed"]


def test_a_missing_tun_driver_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(tun, "CLONE_DEVICE", tmp_path / "tun")
    with pytest.raises(UserError, match="is missing: load the kernel module"):
        Tun.create("conflux9")


def test_no_permission_says_what_to_do(monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="run as root or with CAP_NET_ADMIN"):
        Tun.create("conflux9")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EBUSY, "named conflux9 exists already"),
        (errno.EPERM, "no permission to create conflux9"),
        (errno.ENOMEM, "cannot create conflux9: Cannot allocate memory"),
    ],
)
def test_an_error_of_the_kernel_about_the_device_is_explained(monkeypatch, tmp_path, number, words):
    clone = tmp_path / "tun"
    clone.touch(stat.S_IRUSR | stat.S_IWUSR)
    monkeypatch.setattr(tun, "CLONE_DEVICE", clone)

    def refuse(fd, request, argument):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tun.fcntl, "ioctl", refuse)  # type: ignore[attr-defined]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match=words):
        Tun.create("conflux9")
    assert len(os.listdir("/proc/self/fd")) == before
