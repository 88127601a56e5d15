"""What a daemon that was taken over can still do: as little as the kernel lets us say.

    Landlock    it reads the system's files and its own program, and writes in its state directory alone
    seccomp     it starts no program, makes none of the calls of DENIED, and types nothing into its terminal
    no core     its memory, which holds keys, is in no core file, and no process of its user reads it

Each is used where the kernel has it.  Nothing here needs a privilege; all of it is inherited and cannot be undone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import conflux

log = logging.getLogger(__name__)

# linux/prctl.h
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38

# linux/landlock.h; the numbers of the calls are those of every architecture
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION: Final = 1
LANDLOCK_RULE_PATH_BENEATH: Final = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, MAKE_SOCK = 1 << 7, 1 << 8, 1 << 9
REFER, TRUNCATE = 1 << 13, 1 << 14
RIGHT_COUNTS: Final = (0, 13, 14, 15, 15, 16)  # of files, by the version that the kernel says; later ones have no more
SCOPE_SIGNAL: Final = 2  # since version 6
SCOPES_SINCE: Final = 6
RIGHTS_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # a rule for a file may name no others

READING: Final = READ_FILE | READ_DIR
KEEPING: Final = READING | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | MAKE_SOCK | REMOVE_FILE | REMOVE_DIR | REFER
LISTENING: Final = READ_DIR | MAKE_SOCK | REMOVE_FILE

# The system's own, and where the resolver's settings are: /etc as a whole, because its files are replaced.
READABLE: Final = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc",
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/conflux-board",
)

RESOLVER: Final = "/etc/resolv.conf"  # a link, as a rule: to what one of many programs writes
SHARED: Final = (Path("/"), Path("/run"))  # never as a whole

# linux/seccomp.h, filter.h, audit.h
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW: Final = 4  # else kernels before 5.16 slow the whole process down
RET_KILL_PROCESS: Final = 0x80000000
RET_ERRNO: Final = 0x00050000
RET_ALLOW: Final = 0x7FFF0000
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# In struct seccomp_data; of arguments the low half on a little-endian machine.
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24
X32_FROM: Final = 0x40000000
NAMESPACES: Final = 0x7E020000 | 0x80  # CLONE_NEW*: mount, cgroup, UTS, IPC, user, PID, net, time

# By machine: the audit number, seccomp(2), clone(2), and clone3(2), whose flags a filter cannot see.
MACHINES: Final = {"x86_64": (0xC000003E, 317, 56, 435), "aarch64": (0xC00000B7, 277, 220, 435)}

IOCTL: Final = {"x86_64": 16, "aarch64": 29}
TYPING: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: what they type, the shell of a person in a terminal would run

# By name: the number on x86_64 and on aarch64; None: there is no such call.
DENIED: Final[dict[str, tuple[int, int | None]]] = {
    # start a program
    "execve": (59, 221),
    "execveat": (322, 281),
    # look into other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # the kernel's own workings, and the parts of it in which most faults are found
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "syslog": (103, 116),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    # the machine
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}


def enter(state: Path, socket: Path, configuration: Path | None = None) -> tuple[str, ...]:
    """Give up what a daemon needs no more; return the names of what the kernel holds us to.

    state: the directory in which everything may be written.  socket: of the API, which may be made and removed.
    configuration: a file that is read again at a reload; if another file takes its place, that one is not readable.
    Threads inherit it from the one that makes them: call this before the first is made.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(libc, PR_SET_DUMPABLE, 0)
    if _prctl(libc, PR_SET_NO_NEW_PRIVS, 1):
        return ()
    held = ["no core"]
    if _landlock(libc, state, socket, configuration):
        held.append("Landlock")
    if _seccomp(libc):
        held.append("seccomp")
    log.info("held to: %s", ", ".join(held))
    return tuple(held)


def _prctl(libc: ctypes.CDLL, option: int, argument: int) -> int:
    zero = ctypes.c_ulong(0)
    return int(libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """Make a system call; return what it returns, or the negative error number."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *given))
    return result if result >= 0 else -ctypes.get_errno()


# ── Landlock ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _landlock(libc: ctypes.CDLL, state: Path, socket: Path, configuration: Path | None) -> bool:
    version = _call(libc, LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version <= 0:
        return False
    handled = (1 << RIGHT_COUNTS[min(version, len(RIGHT_COUNTS) - 1)]) - 1
    if version < len(RIGHT_COUNTS):
        attributes = struct.pack("=QQ", handled, 0)[: 16 if version >= 4 else 8]
    else:
        attributes = struct.pack("=QQQ", handled, 0, SCOPE_SIGNAL)[: 24 if version >= SCOPES_SINCE else 16]
    ruleset = _call(libc, LANDLOCK_CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in rules(state, socket, sys.path):
            _allow(libc, ruleset, path, rights & handled)
        if configuration is not None:
            _allow(libc, ruleset, configuration, READ_FILE)
        return _call(libc, LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def rules(state: Path, socket: Path, places: Iterable[str]) -> Iterator[tuple[Path, int]]:
    """Yield what may be done beneath each path.  places: where modules are found.

    The kernel holds to what lies at a path when the rule is made, and not to the path: a file that another program
    replaces is found again if the rule is for its directory, and only then.  So all rules are for directories, but for
    a resolver's file in a directory that is not to be read as a whole.

    The working directory is among the places of modules with `python -m`, and it may be a home, or the whole disk: it
    is left out, unless the program itself lies there.
    """
    program = {sys.prefix, sys.base_prefix, str(Path(conflux.__file__).resolve().parent)}
    here = "/"
    with contextlib.suppress(OSError):  # it may be gone
        here = os.getcwd()
    modules = set(places) - {"", "/", here}
    resolver = Path(RESOLVER).resolve()
    for path in {*READABLE, *program, *modules, str(resolver if resolver.parent in SHARED else resolver.parent)}:
        yield Path(path), READING
    yield state, KEEPING
    yield socket.parent, LISTENING


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Allow what a rule says beneath a path; one that is not there needs no rule."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not path.is_dir():
                rights &= RIGHTS_OF_FILES
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
            _call(libc, LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)


# ── seccomp ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in MACHINES:
        return False
    _, seccomp, _, _ = MACHINES[machine]
    program = filter_of(machine)
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    for flags in (SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0):  # a kernel before 4.17 knows no such flag
        result = _call(libc, seccomp, SECCOMP_SET_MODE_FILTER, flags, head)
        if result != -errno.EINVAL:
            return result == 0
    return False


def filter_of(machine: str) -> bytes:
    """Return the filter as the kernel takes it: 8 bytes an instruction."""
    audit, _, clone, clone3 = MACHINES[machine]
    refuse = RET_ERRNO | errno.EPERM
    column = list(MACHINES).index(machine)
    instructions = [
        (LOAD_WORD, 0, 0, ARCH_AT),
        (JUMP_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32_FROM),
        (RETURN, 0, 0, refuse),
    ]
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            instructions += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, refuse)]
    instructions += [
        (JUMP_EQUAL, 0, 1, clone3),
        (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),  # the C library then makes its threads by clone()
        (JUMP_EQUAL, 0, 3, clone),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT_AT),
        (JUMP_BITS, 0, 1, NAMESPACES),
        (RETURN, 0, 0, refuse),
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_EQUAL, 0, 4, IOCTL[machine]),
        (LOAD_WORD, 0, 0, SECOND_ARGUMENT_AT),
        (JUMP_EQUAL, 1, 0, TYPING[0]),
        (JUMP_EQUAL, 0, 1, TYPING[1]),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, RET_ALLOW),
    ]
    return b"".join(_instruction(each) for each in instructions)


def _instruction(fields: Iterable[int]) -> bytes:
    return struct.pack("=HBBI", *fields)
