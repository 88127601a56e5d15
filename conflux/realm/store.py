"""The state directory: every file whole or absent, readable by its owner alone.

    lock           held by the daemon, says its pid
    node.key       the node's seed          never leaves the device
    root.key       the realm root's seed    only where the realm was created; may be moved away
    realm.anchor   the realm we belong to
    realm.chain    our credential
    issuer.grant   what the root granted us, if we issue
    boot  clock    counters that only grow
    invites/  issued/  issuer.lock          see issuer_files.py

A file is a record, then the first 8 bytes of SHA-256 over it: whatever a failing card does to it is noticed.  Writing
goes to a second name, is flushed to the medium, and takes the first name's place in one step.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SEED_BYTES, SigningKey
from conflux.errors import LocalProtocolError, RemoteProtocolError, StateError
from conflux.ids import BootId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain, Grant
from conflux.realm.identity import NodeKeys
from conflux.realm.member import Member
from conflux.wire import Record, octets, uint

CHECK_BYTES = 8
FILE_BYTES_MAX = 65536
BOOT_NUMBER_MAX = 2**40 - 1
EXCLUSIVE_WAIT_S = 1.0  # chosen: a transaction takes milliseconds
EXCLUSIVE_POLL_S = 0.005

NODE_KEY, ROOT_KEY = "node.key", "root.key"
ANCHOR, CHAIN, GRANT = "realm.anchor", "realm.chain", "issuer.grant"
BOOT, CLOCK, LOCK = "boot", "clock", "lock"

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class KeyFile(Record):
    SHAPES = (octets(SEED_BYTES),)

    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counter(Record):
    SHAPES = (uint(),)

    value: int


def _explain(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What tells a file from the one that took its place."""

    inode: int
    written_ns: int
    mode: int


class StateDir:
    """One node's state.  Every method raises StateError, whose text names the file and what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Return the directory at path; make it (0700) if asked to."""
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
        return cls(path)

    # ── one process at a time ──

    def lock(self) -> None:
        """Take the directory for this process until close().  Raises StateError with the holder's pid."""
        if self._lock_fd is not None:
            raise LocalProtocolError("already locked by us")
        path = self.path / LOCK
        try:
            lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(f"{path}: {_explain(error)}") from None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(lock_fd, 0)
            os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = os.pread(lock_fd, 16, 0).strip().decode("ascii", "replace")
            os.close(lock_fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StateError(f"{self.path}: in use by process {holder or 'unknown'}") from None
            raise StateError(f"{path}: {_explain(error)}") from None
        self._lock_fd = lock_fd

    def close(self) -> None:
        """Let the directory go.  Safe to repeat."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Wait for a lock file and hold it: for short changes that the daemon and the command line both make.

        The wait is bounded, for it stops the daemon: a command line stopped with Ctrl-Z must not stop it for good.
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
        """Make data the content of the file, wholly or not at all, also if the power fails now."""
        path = self.path / name
        # A fixed second name: what a crash leaves of it is overwritten by the next writing, never read.
        beside = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            file_fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            with os.fdopen(file_fd, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            self._sync_directory(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise StateError(f"{path}: cannot write: {_explain(error)}") from None

    def remove(self, name: str) -> None:
        """Remove a file.  No-op if there is none."""
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
            self._sync_directory(path.parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StateError(f"{path}: cannot remove: {_explain(error)}") from None

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is none."""
        path = self.path / name
        try:
            file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(file_fd, "rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise StateError(f"{path}: open to others (mode {mode:04o}); chmod 600 it")
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path}: cannot read: {_explain(error)}") from None
        if len(data) > FILE_BYTES_MAX:
            raise StateError(f"{path}: damaged (too large)")
        return data

    def versions(self, directory: str, suffix: str) -> dict[str, FileVersion]:
        """Return the files with suffix of a subdirectory, by name as the other methods take it, in order.

        A file is never changed in place, so an equal version means equal content, unless it is milliseconds old.
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
        """Write a record to a file."""
        data = record.encode()
        self.atomic_write(name, data + sha256(data)[:CHECK_BYTES])

    def load_record(self, name: str, kind: type[R]) -> R | None:
        """Return the record of a file, or None if there is no file."""
        data = self.read(name)
        if data is None:
            return None
        encoded, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
        if sha256(encoded)[:CHECK_BYTES] != check:
            raise StateError(f"{self.path / name}: damaged (checksum); restore it from a copy or remove it")
        try:
            return kind.decode_untrusted(encoded)
        except RemoteProtocolError as error:
            raise StateError(f"{self.path / name}: not what this version of conflux writes ({error})") from None

    def _sync_directory(self, directory: Path) -> None:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)

    # ── what is kept ──

    def node_keys(self) -> NodeKeys | None:
        """Return the node's keys, or None if it has made none yet."""
        key = self._signing_key(NODE_KEY)
        return None if key is None else NodeKeys(key)

    def make_node_keys(self) -> NodeKeys:
        """Return the node's keys; if there are none, make them, and keep them before anybody sees them."""
        keys = self.node_keys()
        if keys is None:
            keys = NodeKeys.generate()
            self._save_signing_key(NODE_KEY, keys.signing)
        return keys

    def root_key(self) -> SigningKey | None:
        """Return the realm root's key, if it is kept here."""
        return self._signing_key(ROOT_KEY)

    def save_root_key(self, key: SigningKey) -> None:
        """Keep the root's key.  Raises StateError if another is kept: no key is ever overwritten."""
        self._save_signing_key(ROOT_KEY, key)

    def _signing_key(self, name: str) -> SigningKey | None:
        file = self.load_record(name, KeyFile)
        return None if file is None else SigningKey.from_seed(file.seed)

    def _save_signing_key(self, name: str, key: SigningKey) -> None:
        if self.read(name) is not None:
            raise StateError(f"{self.path / name}: a key is here already")
        self.save_record(name, KeyFile(key.seed))

    def anchor(self) -> RealmAnchor | None:
        """Return the realm we belong to, verified, or None."""
        anchor = self.load_record(ANCHOR, RealmAnchor)
        if anchor is not None:
            try:
                anchor.verify()
            except RemoteProtocolError as error:
                raise StateError(f"{self.path / ANCHOR}: not a valid realm ({error})") from None
        return anchor

    def member(self) -> Member | None:
        """Return us as a member, or None if we belong to no realm.

        Signatures are verified, dates are not: an expired member still starts, says so, and can be renewed by hand.
        """
        anchor = self.anchor()
        chain = self.load_record(CHAIN, Chain)
        if anchor is None or chain is None:
            return None
        keys = self.node_keys()
        if keys is None:
            raise StateError(f"{self.path / NODE_KEY}: missing, and the credential beside it is of no use without it")
        try:
            chain.verify_signatures(anchor)
            return Member(keys, anchor, chain)
        except (RemoteProtocolError, LocalProtocolError) as error:
            raise StateError(f"{self.path / CHAIN}: no credential of ours in this realm ({error})") from None

    def save_member(self, member: Member) -> None:
        """Keep anchor and chain.  Raises StateError if we belong to another realm."""
        self.require_realm(member.anchor)
        self.save_record(ANCHOR, member.anchor)
        self.save_record(CHAIN, member.chain)  # last: without it the directory belongs to no realm yet

    def require_realm(self, anchor: RealmAnchor | None) -> None:
        """Raise StateError if we belong to a realm other than anchor's; with None, if we belong to any."""
        mine = self.load_record(ANCHOR, RealmAnchor)
        if mine is None or self.read(CHAIN) is None:
            return
        if anchor is None or anchor.realm_id != mine.realm_id:
            raise StateError(f"{self.path}: belongs to realm {mine.name} already; one directory holds one realm")

    def grant(self) -> Grant | None:
        """Return what the root granted us, or None if we do not issue."""
        return self.load_record(GRANT, Grant)

    def save_grant(self, grant: Grant) -> None:
        self.save_record(GRANT, grant)

    def floor_unix(self) -> int:
        """Return the newest realm-signed date kept, or 0."""
        kept = self.load_record(CLOCK, Counter)
        return 0 if kept is None else kept.value

    def save_floor(self, date_unix: int) -> None:
        self.save_record(CLOCK, Counter(date_unix))

    def next_boot(self, *, now_unix: int, entropy: Callable[[int], bytes]) -> BootId:
        """Return this start's boot id, kept before it is used: no two starts share one, whatever the clock does."""
        kept = self.load_record(BOOT, Counter)
        number = max(0 if kept is None else kept.value + 1, now_unix)
        if number > BOOT_NUMBER_MAX:
            raise StateError(f"{self.path / BOOT}: no boot number follows {number - 1}")
        self.save_record(BOOT, Counter(number))
        return BootId(number.to_bytes(5, "big") + entropy(3))
