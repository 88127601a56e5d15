"""Giving up capabilities: a refusal of the kernel is an error, unless it means that there is nothing to give up."""

from __future__ import annotations

import ctypes
import errno
from types import SimpleNamespace

import pytest

from conflux.host import privileges
from conflux.host.privileges import (
    CAPABILITY_COUNT_MAX,
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PrivilegeError,
)

LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE, of Linux 5.9


class Libc:
    """The calls that drop() makes, and a kernel that refuses some.  refused: error numbers by prctl option."""

    def __init__(self, refused: dict[int, int] | None = None, capset_error: int = 0) -> None:
        self.refused = refused or {}
        self.capset_error = capset_error
        self.asked: list[tuple[int, int]] = []
        self.cleared = False

    def prctl(self, option, argument, *zeros) -> int:
        self.asked.append((option, argument.value))
        past_the_last = option == PR_CAPBSET_DROP and argument.value > LAST_CAPABILITY
        error = errno.EINVAL if past_the_last else self.refused.get(option, 0)
        ctypes.set_errno(error)
        return -1 if error else 0

    def capset(self, header, data) -> int:
        assert data.raw.strip(b"\0") == b"", "no capability is kept"
        ctypes.set_errno(self.capset_error)
        self.cleared = not self.capset_error
        return -1 if self.capset_error else 0


@pytest.fixture
def drop(monkeypatch):
    """Return a function that drops capabilities with a C library of ours."""

    def drop(libc: Libc) -> None:
        fake = SimpleNamespace(**{name: getattr(ctypes, name) for name in ("c_ulong", "get_errno")})
        fake.create_string_buffer = ctypes.create_string_buffer
        fake.CDLL = lambda name, use_errno: libc
        monkeypatch.setattr(privileges, "ctypes", fake)
        monkeypatch.setattr(privileges, "effective", lambda: 0 if libc.cleared else 1 << 12)
        privileges.drop()

    return drop


def test_new_privileges_are_forbidden_before_any_capability_is_dropped(drop):
    libc = Libc()
    drop(libc)
    assert libc.asked[0] == (PR_SET_NO_NEW_PRIVS, 1)
    assert libc.cleared


def test_every_capability_of_the_kernel_leaves_the_bounding_set(drop):
    libc = Libc()
    drop(libc)
    dropped = [number for option, number in libc.asked if option == PR_CAPBSET_DROP]
    assert dropped == list(range(LAST_CAPABILITY + 2)), "up to the first that the kernel does not know"
    assert LAST_CAPABILITY < CAPABILITY_COUNT_MAX


def test_an_ordinary_user_who_may_drop_nothing_goes_on(drop):
    libc = Libc({PR_CAPBSET_DROP: errno.EPERM})
    drop(libc)
    assert [number for option, number in libc.asked if option == PR_CAPBSET_DROP] == [0]


def test_a_kernel_without_ambient_capabilities_is_good_enough(drop):
    drop(Libc({PR_CAP_AMBIENT: errno.EINVAL}))


@pytest.mark.parametrize(
    ("libc", "words"),
    [
        (Libc({PR_SET_NO_NEW_PRIVS: errno.EINVAL}), "no_new_privs was refused"),
        (Libc(capset_error=errno.EPERM), "capset: Operation not permitted"),
    ],
)
def test_a_refusal_of_the_kernel_is_an_error(drop, libc, words):
    with pytest.raises(PrivilegeError, match=words):
        drop(libc)


def test_capabilities_that_remain_are_an_error(drop, monkeypatch):
    libc = Libc()
    libc.capset = lambda header, data: 0  # it says yes and does nothing
    with pytest.raises(PrivilegeError, match="capabilities remain: 0x1000"):
        drop(libc)
