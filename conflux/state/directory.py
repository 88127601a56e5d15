"""The state directory: every file is complete or missing, and only its owner can read it.

    lock           held by the daemon, holds its pid
    node.key       the node's seed          never leaves the device
    root.key       the realm root's seed    only where the realm was created; may be moved away
    realm.anchor   the realm we belong to
    realm.chain    our credential
    issuer.grant   what the root granted us, if we issue
    boot  clock    counters that only grow; made anew if the disk damages them
    twin           the daemon ended because of a board with the same identity
    erasing        all that is here is to be forgotten, see erasing.py
    spare/         a second copy of node.key, realm.anchor, realm.chain, issuer.grant, for the day of damage
    invites/  issued/  waiting/  issuer.lock    see issuer_files.py
    broker  broker.key  broker.notice       see broker_files.py
    lists/                                  see list_files.py
    further/  given/                        see grants.py
    audit-REALM/                            see audit_files.py
    usage  usage.damaged                    see usage_files.py

A file is a record, followed by the first 8 bytes of SHA-256 over it, so that damage by a failing disk is noticed.  A
new content is written under a second name, flushed to the disk, and then renamed over the old one in one step.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SEED_BYTES, SigningKey
from conflux.errors import LocalProtocolError, RemoteProtocolError, StateError
from conflux.ids import BootId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain, Grant
from conflux.realm.identity import NodeKeys
from conflux.realm.member import Member
from conflux.record import Record, octets, uint
from conflux.state import erasing, whole
from conflux.state.whole import sync_directory

log = logging.getLogger(__name__)

CHECK_BYTES = 8
FILE_BYTES_MAX = 65536
BOOT_NUMBER_MAX = 2**40 - 1
BOOT_AHEAD_MAX = 366 * 86400  # a boot's number is the time of its start; who says what is later spends all numbers
EXCLUSIVE_WAIT_S = 1.0  # chosen: a transaction takes milliseconds
EXCLUSIVE_POLL_S = 0.005

NODE_KEY, ROOT_KEY = "node.key", "root.key"
ANCHOR, CHAIN, GRANT = "realm.anchor", "realm.chain", "issuer.grant"
BOOT, CLOCK, LOCK = "boot", "clock", "lock"
TWIN = "twin"
GUARDED = (NODE_KEY, ANCHOR, CHAIN, GRANT)  # not root.key, which a person may move away, and of which there are backups
SPARE = "spare"
CANNOT_WRITE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)  # the disk takes nothing, whoever asks

_FORGETS = "this node works, and forgets at its end what it learns; make room, or another card"

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class KeyFile(Record):
    """The content of node.key and root.key."""

    SHAPES = (octets(SEED_BYTES),)

    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counter(Record):
    """The content of boot and clock."""

    SHAPES = (uint(),)

    value: int


def _explain(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


class DamagedError(StateError):
    """A file is there and has no sense: the disk lost what was written."""


class FileVersion(NamedTuple):
    """What distinguishes a file from one that replaced it."""

    inode: int
    written_ns: int
    mode: int


class StateDir:
    """One node's state.  Every method raises StateError, whose text names the file and what a person can do."""

    def __init__(self, path: Path, *, mends: bool = True) -> None:
        self.path, self._mends = path, mends
        self._lock_fd: int | None = None
        self._mended: dict[str, str] = {}  # by file: what was done about it

    @classmethod
    def open(cls, path: Path, *, create: bool = False, mends: bool = True) -> Self:
        """Return the directory at path.  create: make it, with mode 0700, if missing.  mends: reading mends damage."""
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700, exist_ok=True)
            status = path.stat()
        except FileNotFoundError:
            raise StateError(
                f"{path}: no such state directory; conflux realm create or conflux join make one"
            ) from None
        except OSError as error:
            raise StateError(f"{path}: {_explain(error)}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise StateError(f"{path}: not a directory")
        if status.st_mode & 0o077:
            raise StateError(f"{path}: open to others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 700 it")
        opened = cls(path, mends=mends)
        if mends and erasing.is_begun(path):
            with contextlib.closing(opened):
                opened.lock()
                erasing.finish(path)
        return opened

    # ── one process at a time ──

    def lock(self) -> None:
        """Lock the directory for this process until close().  Raises StateError with the pid of the holder."""
        if self._lock_fd is not None:
            raise LocalProtocolError("already locked by us")
        path = self.path / LOCK
        try:
            lock_fd = self._open_lock(path)
        except OSError as error:
            raise StateError(f"{path}: {_explain(error)}") from None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # the disk is full or read-only: the lock holds all the same
                os.truncate(lock_fd, 0)
                os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = ""
            with contextlib.suppress(OSError):  # it is the directory that is locked
                holder = os.pread(lock_fd, 16, 0).strip().decode("ascii", "replace")
            os.close(lock_fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StateError(
                    f"{self.path}: in use by process {holder or 'unknown'}: conflux down ends the daemon"
                ) from None
            raise StateError(f"{path}: {_explain(error)}") from None
        self._lock_fd = lock_fd

    def _open_lock(self, path: Path) -> int:
        """Return a descriptor to lock: of the file; on a disk that takes no file, of what there is."""
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if error.errno not in CANNOT_WRITE:
                raise
        try:
            return os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | flags)

    def close(self) -> None:
        """Release the lock.  Safe to repeat."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Wait for a lock file and hold it: for short changes that the daemon and the command line both make.

        The wait is bounded because the daemon does nothing else meanwhile: a command that a person stopped with Ctrl-Z
        must not stop the daemon for good.
        """
        path = self.path / name
        try:
            lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(f"{path}: {_explain(error)}") from None
        try:
            give_up_at = time.monotonic() + EXCLUSIVE_WAIT_S
            while True:
                try:
                    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= give_up_at:
                        raise StateError(f"{path}: held by another process for {EXCLUSIVE_WAIT_S} s") from None
                    time.sleep(EXCLUSIVE_POLL_S)
            yield
        finally:
            os.close(lock_fd)

    # ── files ──

    def atomic_write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Make data the content of the file, completely or not at all, even if the power fails now."""
        path = self.path / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            whole.write(path, data, mode)
        except OSError as error:
            raise StateError(f"{path}: cannot write: {_explain(error)}") from None

    def remove(self, name: str) -> None:
        """Remove a file.  No-op if there is none."""
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StateError(f"{path}: cannot remove: {_explain(error)}") from None

    def append(self, name: str, data: bytes) -> None:
        """Add data at the end of a file, and flush it to the disk; if that fails, the file is as before."""
        path = self.path / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            is_new = not path.exists()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file_fd = os.open(path, flags, 0o600)
            try:
                size = os.fstat(file_fd).st_size
                try:
                    if os.write(file_fd, data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file_fd)
                except OSError:
                    os.ftruncate(file_fd, size)
                    raise
            finally:
                os.close(file_fd)
            if is_new:
                sync_directory(path.parent)
                sync_directory(self.path)
        except OSError as error:
            raise StateError(f"{path}: cannot write: {_explain(error)}") from None

    def cut(self, name: str, size: int) -> None:
        """Shorten a file to its first size bytes."""
        path = self.path / name
        try:
            with path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
        except OSError as error:
            raise StateError(f"{path}: cannot write: {_explain(error)}") from None

    def size(self, name: str) -> int:
        """Return how many bytes a file has; 0 if there is none."""
        path = self.path / name
        try:
            return path.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StateError(f"{path}: {_explain(error)}") from None

    def read_end(self, name: str, count: int) -> bytes:
        """Return the last bytes of a file, at most count."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                file.seek(-min(count, file.seek(0, os.SEEK_END)), os.SEEK_END)
                return file.read(count)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StateError(f"{path}: cannot read: {_explain(error)}") from None

    def read(self, name: str, *, bytes_max: int = FILE_BYTES_MAX) -> bytes | None:
        """Return a file's content, or None if there is none."""
        path = self.path / name
        try:
            file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(file_fd, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):  # a pipe would stop the reader, or a device do more
                    raise StateError(f"{path}: not a regular file")
                mode = stat.S_IMODE(status.st_mode)
                if mode & 0o077:
                    raise StateError(f"{path}: open to others (mode {mode:04o}); chmod 600 it")
                data = file.read(bytes_max + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path}: cannot read: {_explain(error)}") from None
        if len(data) > bytes_max:
            raise DamagedError(f"{path}: damaged (too large)")
        return data

    def versions(self, directory: str, suffix: str) -> dict[str, FileVersion]:
        """Return the files of a subdirectory whose names end in suffix, sorted, by name as the other methods take it.

        A file is never changed in place, so an equal version means equal content, unless the file is only milliseconds
        old.
        """
        found = {}
        try:
            with os.scandir(self.path / directory) as entries:
                for entry in entries:
                    if entry.name.endswith(suffix) and not entry.name.startswith("."):
                        status = entry.stat(follow_symlinks=False)
                        found[f"{directory}/{entry.name}"] = FileVersion(
                            status.st_ino, status.st_mtime_ns, status.st_mode
                        )
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self.path / directory}: {_explain(error)}") from None
        return dict(sorted(found.items()))

    def save_record(self, name: str, record: Record) -> None:
        """Write a record to a file, with its checksum."""
        data = record.encode()
        self.atomic_write(name, data + sha256(data)[:CHECK_BYTES])

    def load_record(self, name: str, kind: type[R]) -> R | None:
        """Return the record of a file, or None if there is no file.  A damaged one is put back if it has a spare."""
        try:
            return self._load(name, kind)
        except DamagedError as damage:
            kept = self._spare(name, kind)
            if kept is None:
                raise
            self._mend(name, f"{damage}; its spare is used")
            with contextlib.suppress(StateError):  # else the spare is used at every start
                if self._mends:
                    self.save_record(name, kept)
            return kept

    def _load(self, name: str, kind: type[R]) -> R | None:
        data = self._whole(name)
        if data is None:
            return None
        try:
            return kind.decode_untrusted(data[:-CHECK_BYTES])
        except RemoteProtocolError as error:
            raise StateError(f"{self.path / name}: not what this version of conflux writes ({error})") from None

    def _whole(self, name: str) -> bytes | None:
        """Return the content of a record's file, with its checksum, or None.  Raises DamagedError if it is not true."""
        data = self.read(name)
        if data is not None and sha256(data[:-CHECK_BYTES])[:CHECK_BYTES] != data[-CHECK_BYTES:]:
            raise DamagedError(f"{self.path / name}: damaged (checksum); restore it from a copy or remove it")
        return data

    # ── what a bad disk did ──

    def guard(self) -> None:
        """Keep spares of the files that nobody else has; where they cannot be written, the log says so.

        A file that was damaged since it was read takes the place of no spare.
        """
        for name in GUARDED:
            try:
                data = self._whole(name)
                if data is not None and data != self.read(f"{SPARE}/{name}"):
                    self.atomic_write(f"{SPARE}/{name}", data)
            except StateError as error:
                log.warning("no spare of %s: %s", name, error)

    def _spare(self, name: str, kind: type[R]) -> R | None:
        if name not in GUARDED:
            return None
        try:
            return self._load(f"{SPARE}/{name}", kind)
        except StateError:
            return None

    def _mend(self, name: str, what: str) -> None:
        """Note for a person what was done about a file."""
        if self._mended.get(name) != what:
            log.warning("%s", what)
            self._mended[name] = what

    def warnings(self) -> list[str]:
        """Return what a person should know about the disk: what was damaged, and whether it takes anything now."""
        found = [f"state-damaged: {what}" for what in self._mended.values()]
        status = os.statvfs(self.path)
        room = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        if status.f_flag & os.ST_RDONLY:
            found.append(f"state-read-only: {self.path} is on a read-only disk: {_FORGETS}")
        elif not room or (status.f_files and not status.f_ffree):
            found.append(f"state-full: the disk of {self.path} is full: {_FORGETS}")
        return found

    def _counter(self, name: str) -> int | None:
        """Return a counter, or None if there is none, or none that can be read: it is made anew."""
        try:
            kept = self.load_record(name, Counter)
        except DamagedError as damage:
            self._mend(name, f"{damage.args[0].partition(';')[0]}; made anew")
            return None
        return None if kept is None else kept.value

    def _save_counter(self, name: str, value: int) -> None:
        """Save a counter; on a full disk in the place of the old one, which needs no room.  Raises StateError.

        If the power fails in that moment the file is damaged, and made anew.
        """
        record = Counter(value)
        try:
            self.save_record(name, record)
        except StateError:
            data = record.encode()
            try:
                with (self.path / name).open("r+b") as file:
                    file.write(data + sha256(data)[:CHECK_BYTES])
                    file.truncate()
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                pass
            else:
                return
            raise

    # ── what is kept ──

    def node_keys(self) -> NodeKeys | None:
        """Return the node's keys, or None if it has made none yet."""
        key = self._signing_key(NODE_KEY)
        return None if key is None else NodeKeys(key)

    def make_node_keys(self) -> NodeKeys:
        """Return the node's keys; if there are none, make them, and save them before they are used."""
        keys = self.node_keys()
        if keys is None:
            keys = NodeKeys.generate()
            self._save_signing_key(NODE_KEY, keys.signing)
        return keys

    def root_key(self) -> SigningKey | None:
        """Return the realm root's key, or None if it is not kept here."""
        return self._signing_key(ROOT_KEY)

    def save_root_key(self, key: SigningKey) -> None:
        """Save the root's key.  Raises StateError if one is saved already: no key is ever overwritten."""
        self._save_signing_key(ROOT_KEY, key)

    def _signing_key(self, name: str) -> SigningKey | None:
        file = self.load_record(name, KeyFile)
        return None if file is None else SigningKey.from_seed(file.seed)

    def _save_signing_key(self, name: str, key: SigningKey) -> None:
        if self.read(name) is not None:
            raise StateError(f"{self.path / name}: a key is here already")
        self.save_record(name, KeyFile(key.seed))

    def anchor(self) -> RealmAnchor | None:
        """Return the realm we belong to, its signature verified, or None."""
        anchor = self.load_record(ANCHOR, RealmAnchor)
        if anchor is not None:
            try:
                anchor.verify()
            except RemoteProtocolError as error:
                raise StateError(f"{self.path / ANCHOR}: not a valid realm ({error})") from None
        return anchor

    def member(self) -> Member | None:
        """Return this node as a member, or None if it belongs to no realm.

        Signatures are verified, dates are not: a node whose credential has ended still starts, reports that, and can
        join again.
        """
        anchor = self.anchor()
        chain = self.load_record(CHAIN, Chain)
        if anchor is None or chain is None:
            return None
        keys = self.node_keys()
        if keys is None:
            raise StateError(f"{self.path / NODE_KEY}: missing, and the credential beside it is useless without it")
        try:
            chain.verify_signatures(anchor)
            return Member(keys, anchor, chain)
        except (RemoteProtocolError, LocalProtocolError) as error:
            raise StateError(f"{self.path / CHAIN}: no credential of ours in this realm ({error})") from None

    def save_member(self, member: Member) -> None:
        """Save the member's anchor and chain.  Raises StateError if we belong to another realm."""
        self.require_realm(member.anchor)
        self.save_record(ANCHOR, member.anchor)
        self.save_record(CHAIN, member.chain)  # last: without it the directory belongs to no realm yet

    def forget_realm(self) -> None:
        """Belong to no realm any more; the node's keys stay."""
        for name in (CHAIN, ANCHOR, CLOCK):  # the first one decides, see save_member()
            self.remove(name)
        for name in (CHAIN, ANCHOR, GRANT):
            self.remove(f"{SPARE}/{name}")

    def has_realm(self) -> bool:
        """Say whether a membership is kept here, good or not; for what looks often."""
        return (self.path / CHAIN).exists()

    def require_realm(self, anchor: RealmAnchor | None) -> None:
        """Raise StateError if we belong to a realm other than anchor's; with None, if we belong to any."""
        mine = self.load_record(ANCHOR, RealmAnchor)
        if mine is None or self.read(CHAIN) is None:
            return
        if anchor is None or anchor.realm_id != mine.realm_id:
            raise StateError(
                f"{self.path}: belongs to realm {mine.name} already; conflux leave ends that, --state-dir names another"
            )

    def grant(self) -> Grant | None:
        """Return what the root granted us, or None if we do not issue."""
        return self.load_record(GRANT, Grant)

    def save_grant(self, grant: Grant) -> None:
        """Save what the root granted us."""
        self.save_record(GRANT, grant)

    def floor_unix(self) -> int:
        """Return the newest date signed by the realm, in Unix seconds, or 0 if none is saved.

        If the disk damaged it, that of our own credential is the newest that is known.
        """
        kept = self._counter(CLOCK)
        if kept is not None:
            return kept
        chain = self.load_record(CHAIN, Chain) if CLOCK in self._mended else None
        return 0 if chain is None else chain.newest_date

    def save_floor(self, date_unix: int) -> None:
        """Save the newest date signed by the realm."""
        self._save_counter(CLOCK, date_unix)

    def note_boot(self, boot: BootId, *, now_unix: int) -> bool:
        """Have the next start's number be larger than that of this node's boot on another board, which is gone.

        Return False if it is too far ahead to be a true one.  now_unix: Unix seconds.  Raises StateError.
        """
        kept, number = self._counter(BOOT), int.from_bytes(boot[:5], "big")
        if number > max(now_unix, self.floor_unix()) + BOOT_AHEAD_MAX:
            return False
        self._save_counter(TWIN, number)
        if kept is None or number > kept:
            self._save_counter(BOOT, number)
        return True

    def began_for_twin(self) -> bool:
        """Say whether another board with this identity made this start, and forget it.

        Also True if the disk does not forget.
        """
        try:
            began = self.read(TWIN) is not None
            if began:
                self.remove(TWIN)
        except StateError:
            return True
        return began

    def next_boot(self, *, now_unix: int, entropy: Callable[[int], bytes]) -> BootId:
        """Return the boot id of this start, saved before it is used.

        Its number is larger than that of every earlier start, even if the clock was set back, as long as the disk keeps
        it; a node that comes up is worth more than that.  now_unix: Unix seconds.
        """
        kept = self._counter(BOOT)
        number = max(self.floor_unix() if kept is None else kept + 1, now_unix)
        if number > BOOT_NUMBER_MAX:
            raise StateError(f"{self.path / BOOT}: no boot number follows {number - 1}")
        try:
            self._save_counter(BOOT, number)
        except StateError as error:
            self._mend(BOOT, f"{error}: other nodes may not hear this one after a start with a wrong clock")
        return BootId(number.to_bytes(5, "big") + entropy(3))
