"""The filter of system calls, run call by call as the kernel does; loopback/host shows that a kernel takes it."""

from __future__ import annotations

import errno
import os
import struct
import termios
from pathlib import Path

import pytest

from conflux.host import sandbox

# Some calls that the daemon makes all the time, by machine: read, write, sendmsg, recvmmsg, epoll_pwait, futex, mmap.
NEEDED = {"x86_64": (0, 1, 46, 299, 281, 202, 9), "aarch64": (63, 64, 211, 243, 22, 98, 222)}
THREAD_FLAGS = 0x3D0F00  # CLONE_VM | CLONE_FS | ... as the C library makes a thread
NEW_USER = 0x10000000


def judge(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Return what the filter returns for a call."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = word = 0
    while True:
        kind, true, false, value = code[at]
        at += 1
        match kind:
            case sandbox.LOAD_WORD:
                (word,) = struct.unpack_from("=I", data, value)
            case sandbox.RETURN:
                return value
            case sandbox.JUMP_EQUAL:
                at += true if word == value else false
            case sandbox.JUMP_AT_LEAST:
                at += true if word >= value else false
            case sandbox.JUMP_BITS:
                at += true if word & value else false


REFUSED = sandbox.RET_ERRNO | errno.EPERM


@pytest.mark.parametrize(("column", "machine"), list(enumerate(sandbox.MACHINES)))
@pytest.mark.parametrize("name", sandbox.DENIED)
def test_a_denied_call_is_refused(column: int, machine: str, name: str) -> None:
    number = sandbox.DENIED[name][column]
    if number is not None:
        audit = sandbox.MACHINES[machine][0]
        assert judge(sandbox.filter_of(machine), audit, number) == REFUSED


@pytest.mark.parametrize("machine", sandbox.MACHINES)
def test_what_the_daemon_needs_is_allowed(machine: str) -> None:
    audit, _, clone, clone3 = sandbox.MACHINES[machine]
    program = sandbox.filter_of(machine)
    assert {judge(program, audit, number) for number in NEEDED[machine]} == {sandbox.RET_ALLOW}
    assert judge(program, audit, clone, THREAD_FLAGS) == sandbox.RET_ALLOW
    assert judge(program, audit, clone3) == sandbox.RET_ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", sandbox.MACHINES)
def test_no_namespace_is_made_and_no_other_architecture_is_spoken(machine: str) -> None:
    audit, _, clone, _ = sandbox.MACHINES[machine]
    program = sandbox.filter_of(machine)
    assert judge(program, audit, clone, THREAD_FLAGS | NEW_USER) == REFUSED
    assert judge(program, audit ^ 1, NEEDED[machine][0]) == sandbox.RET_KILL_PROCESS
    assert judge(program, audit, sandbox.X32_FROM) == REFUSED


@pytest.mark.parametrize("machine", sandbox.MACHINES)
@pytest.mark.parametrize("high", [0, 1 << 32])  # the kernel looks at 32 bits of a request
def test_nothing_is_typed_into_the_terminal_that_the_daemon_was_started_from(machine: str, high: int) -> None:
    audit, ioctl = sandbox.MACHINES[machine][0], sandbox.IOCTL[machine]
    program = sandbox.filter_of(machine)
    for request in (termios.TIOCSTI, termios.TIOCLINUX):
        assert judge(program, audit, ioctl, 0, high | request) == REFUSED
    assert judge(program, audit, ioctl, 0, termios.FIONREAD) == sandbox.RET_ALLOW


@pytest.mark.parametrize("where", ["/", "/home/pi", "/root"])
def test_where_the_daemon_was_started_from_is_not_read_because_of_that(monkeypatch, tmp_path, where):
    """`python -m conflux` has the working directory among the places of modules."""
    monkeypatch.setattr(os, "getcwd", lambda: where)
    found = [path for path, _ in sandbox.rules(tmp_path, tmp_path / "sock", [where, "/opt/modules"])]
    assert Path("/opt/modules") in found
    assert Path(where) not in found


def test_the_resolvers_settings_are_read_wherever_they_lie(monkeypatch, tmp_path):
    (tmp_path / "run/netconfig").mkdir(parents=True)
    (tmp_path / "run/netconfig/resolv.conf").write_text("nameserver 192.0.2.1")
    (tmp_path / "resolv.conf").symlink_to("run/netconfig/resolv.conf")
    monkeypatch.setattr(sandbox, "RESOLVER", str(tmp_path / "resolv.conf"))
    allowed = dict(sandbox.rules(tmp_path / "state", tmp_path / "sock", ()))
    assert allowed[tmp_path / "run/netconfig"] == sandbox.READING


def test_of_a_directory_that_is_shared_the_resolvers_file_alone_is_read(monkeypatch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/resolv.conf").write_text("nameserver 192.0.2.1")
    (tmp_path / "resolv.conf").symlink_to("run/resolv.conf")
    monkeypatch.setattr(sandbox, "RESOLVER", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(sandbox, "SHARED", (tmp_path / "run",))
    allowed = dict(sandbox.rules(tmp_path / "state", tmp_path / "sock", ()))
    assert allowed[tmp_path / "run/resolv.conf"] == sandbox.READING
    assert tmp_path / "run" not in allowed
