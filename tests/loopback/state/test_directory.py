"""The state directory with wrong modes, on a failing disk, after a crash, and beside a second process."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, make_member, make_realm, node_keys

from conflux.crypto.sign import SigningKey
from conflux.errors import LocalProtocolError, StateError
from conflux.ids import BootId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import make_invite
from conflux.realm.issued import Issued
from conflux.state import directory
from conflux.state.directory import BOOT_AHEAD_MAX, Counter, KeyFile, StateDir
from conflux.state.issuer_files import IssuerFiles

REALM = make_realm()
ALPHA = make_member(REALM, "alpha")


def entropy(size: int) -> bytes:
    return bytes(range(1, size + 1))


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir.open(tmp_path / "state", create=True)


@pytest.fixture
def joined(state: StateDir) -> StateDir:
    state.save_record(directory.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
    state.save_member(ALPHA)
    return state


# ── the directory ──


def test_directory_is_made_for_its_owner_alone(state):
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert StateDir.open(state.path).path == state.path


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(StateError, match="nowhere: no such state directory"):
        StateDir.open(tmp_path / "nowhere")


def test_directory_open_to_others_is_refused(state):
    state.path.chmod(0o750)
    with pytest.raises(StateError, match=r"mode 0750.*chmod 700"):
        StateDir.open(state.path, create=True)


def test_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"not a directory|File exists"):
        StateDir.open(tmp_path / "file", create=True)
    with pytest.raises(StateError, match="not a directory"):
        StateDir.open(tmp_path / "file")


# ── one process ──


def test_second_process_is_told_who_holds_the_directory(state):
    program = (
        "import sys; from pathlib import Path; from conflux.state.directory import StateDir;"
        "state = StateDir.open(Path(sys.argv[1])); state.lock(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=f"in use by process {holder.pid}: conflux down"):
            state.lock()
        holder.kill()
    state.lock()  # the kernel released the lock of the killed process
    state.close()


def test_lock_is_free_after_close(state):
    other = StateDir.open(state.path)
    state.lock()
    with pytest.raises(StateError, match=f"in use by process {os.getpid()}"):
        other.lock()
    state.close()
    state.close()
    other.lock()
    other.close()


def test_locking_twice_is_a_local_protocol_error(state):
    state.lock()
    with pytest.raises(LocalProtocolError):
        state.lock()
    state.close()


# ── files ──


def test_file_is_whole_private_and_alone(state):
    state.atomic_write("some", b"one")
    state.atomic_write("some", b"two")
    assert state.read("some") == b"two"
    assert stat.S_IMODE((state.path / "some").stat().st_mode) == 0o600
    assert [entry.name for entry in state.path.iterdir()] == ["some"]


def test_umask_does_not_open_a_file(state):
    before = os.umask(0)
    try:
        state.atomic_write("some", b"")
        state.save_record("sub/other", Counter(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((state.path / "some").stat().st_mode) == 0o600
    assert stat.S_IMODE((state.path / "sub").stat().st_mode) == 0o700


def test_missing_file_is_none(state):
    assert state.read("some") is None
    assert state.load_record("some", Counter) is None
    state.remove("some")
    state.remove("nowhere/some")


@pytest.mark.parametrize("mode", [0o640, 0o604])
@pytest.mark.parametrize("name", [directory.NODE_KEY, directory.CHAIN, directory.BOOT])
def test_file_open_to_others_is_refused(joined, name, mode):
    joined.next_boot(now_unix=1, entropy=entropy)
    (joined.path / name).chmod(mode)
    with pytest.raises(StateError, match=f"{name}: open to others .mode {mode:04o}.; chmod 600"):
        joined.read(name)


def test_half_written_file_of_a_crash_is_never_read(joined):
    # A crash between writing and renaming leaves this file.
    (joined.path / f".{directory.NODE_KEY}.new").write_bytes(b"half")
    assert joined.node_keys().node_id == ALPHA.node_id
    joined.atomic_write(directory.BOOT, b"x")


def test_crash_while_writing_keeps_what_was_there(state, monkeypatch):
    state.save_record("some", Counter(1))

    def full(file_fd: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="some: cannot write: No space left on device"):
        state.save_record("some", Counter(2))
    monkeypatch.undo()
    assert state.load_record("some", Counter) == Counter(1)
    assert [entry.name for entry in state.path.iterdir()] == ["some"]


@pytest.mark.parametrize("name", [directory.NODE_KEY, directory.ANCHOR, directory.CHAIN])
def test_every_cut_of_a_file_is_noticed(joined, name):
    data = (joined.path / name).read_bytes()
    for size in {0, 1, 7, 8, 9, len(data) // 2, len(data) - 8, len(data) - 1}:
        (joined.path / name).write_bytes(data[:size])
        with pytest.raises(StateError, match=f"{name}: damaged"):
            joined.member()


@pytest.mark.parametrize("name", [directory.NODE_KEY, directory.ANCHOR, directory.CHAIN])
def test_every_flipped_bit_of_a_file_is_noticed(joined, name):
    data = (joined.path / name).read_bytes()
    for index in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[index] ^= 4
        (joined.path / name).write_bytes(flipped)
        with pytest.raises(StateError, match=f"{name}: damaged"):
            joined.member()


def test_file_that_is_too_large_is_not_read_into_memory(state):
    (state.path / "some").write_bytes(bytes(directory.FILE_BYTES_MAX + 1))
    (state.path / "some").chmod(0o600)
    with pytest.raises(StateError, match="too large"):
        state.read("some")


def test_file_of_another_kind_is_named(state):
    state.save_record(directory.NODE_KEY, Counter(1))
    with pytest.raises(StateError, match=r"node\.key: not what this version of conflux writes"):
        state.node_keys()


def test_symbolic_link_is_not_followed(state, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"")
    (state.path / "some").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="some: cannot read"):
        state.read("some")


def test_directory_in_place_of_a_file_is_named(state):
    (state.path / "some").mkdir()
    with pytest.raises(StateError, match="some: "):
        state.read("some")
    with pytest.raises(StateError, match="some: cannot write"):
        state.atomic_write("some", b"")


# ── keys and membership ──


def test_node_keys_are_made_once_and_kept(state):
    assert state.node_keys() is None
    keys = state.make_node_keys()
    assert state.make_node_keys().node_id == state.node_keys().node_id == keys.node_id


def test_no_key_is_ever_overwritten(state):
    state.save_root_key(REALM.root)
    with pytest.raises(StateError, match=r"root\.key: a key is here already"):
        state.save_root_key(node_keys("other").signing)
    assert state.root_key().public == REALM.root.public


def test_member_is_kept(joined):
    member = joined.member()
    assert (member.node_id, member.chain, member.anchor) == (ALPHA.node_id, ALPHA.chain, ALPHA.anchor)


def test_fresh_directory_has_no_member(state):
    assert state.member() is None
    state.make_node_keys()
    assert state.member() is None


def test_crash_in_the_middle_of_joining_leaves_no_member_and_can_be_repeated(state):
    state.save_record(directory.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
    state.save_record(directory.ANCHOR, make_realm("elsewhere").anchor)
    assert state.member() is None
    state.save_member(ALPHA)
    assert state.member().name == "alpha"


def test_directory_of_one_realm_does_not_take_another(joined):
    with pytest.raises(StateError, match="belongs to realm home already"):
        joined.save_member(make_member(make_realm("elsewhere"), "alpha"))
    with pytest.raises(StateError, match="belongs to realm home already"):
        joined.require_realm(None)
    assert joined.member().anchor == ALPHA.anchor


def test_missing_node_key_is_named(joined):
    joined.remove(directory.NODE_KEY)
    with pytest.raises(StateError, match=r"node\.key: missing"):
        joined.member()


def test_credential_of_another_node_or_realm_is_named(joined):
    joined.save_record(directory.CHAIN, make_member(REALM, "beta").chain)
    with pytest.raises(StateError, match=r"realm\.chain: no credential of ours"):
        joined.member()
    joined.save_record(directory.CHAIN, make_member(make_realm("elsewhere"), "alpha").chain)
    with pytest.raises(StateError, match=r"realm\.chain: no credential of ours"):
        joined.member()


def test_forged_anchor_is_named(joined):
    anchor = ALPHA.anchor
    forged = RealmAnchor(anchor.root_public, "evil", anchor.ipv4_prefix, anchor.signature)
    joined.save_record(directory.ANCHOR, forged)
    with pytest.raises(StateError, match=r"realm\.anchor: not a valid realm"):
        joined.member()


def test_key_file_hides_its_seed(state):
    keys = NodeKeys.generate()
    assert repr(keys.signing.seed) not in repr(KeyFile(keys.signing.seed))


# ── counters ──


def test_boot_ids_only_grow_whatever_the_clock_does(state):
    boots = [state.next_boot(now_unix=now, entropy=entropy) for now in (1000, 1000, 5, 2000, 0)]
    assert [int.from_bytes(boot[:5]) for boot in boots] == [1000, 1001, 1002, 2000, 2001]
    assert all(len(boot) == 8 and boot[5:] == b"\1\2\3" for boot in boots)


def test_boot_number_is_kept_before_it_is_used(state):
    def unlucky(size: int) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state.next_boot(now_unix=7, entropy=unlucky)
    assert state.next_boot(now_unix=7, entropy=entropy)[:5] == (8).to_bytes(5)


def test_boot_number_beyond_its_field_is_refused(state):
    with pytest.raises(StateError, match="boot"):
        state.next_boot(now_unix=2**40, entropy=entropy)


def test_a_boot_elsewhere_is_followed_by_a_larger_number(state):
    state.next_boot(now_unix=1000, entropy=entropy)
    assert state.note_boot(BootId((5000).to_bytes(5) + b"\xff\xff\xff"), now_unix=1000)
    assert state.note_boot(BootId((4000).to_bytes(5) + b"\xff\xff\xff"), now_unix=1000)
    assert state.next_boot(now_unix=1000, entropy=entropy)[:5] == (5001).to_bytes(5)


def test_boot_elsewhere_counts_up_to_a_year_ahead_of_the_clock_and_of_the_realms_dates(state):
    entropy = bytes
    state.next_boot(now_unix=1000, entropy=entropy)
    latest = 1000 + BOOT_AHEAD_MAX
    assert not state.note_boot(BootId((latest + 1).to_bytes(5) + bytes(3)), now_unix=1000)
    assert state.next_boot(now_unix=1000, entropy=entropy)[:5] == (1001).to_bytes(5)
    assert state.note_boot(BootId(latest.to_bytes(5) + bytes(3)), now_unix=1000)
    state.save_floor(2000)  # the clock of a board without a battery
    assert state.note_boot(BootId((latest + 1000).to_bytes(5) + bytes(3)), now_unix=0)
    assert not state.note_boot(BootId((latest + 1001).to_bytes(5) + bytes(3)), now_unix=0)


def test_clock_floor_is_kept(state):
    assert state.floor_unix() == 0
    state.save_floor(NOW_UNIX)
    assert StateDir.open(state.path).floor_unix() == NOW_UNIX


# ── a bad disk ──


@pytest.fixture
def full_disk(monkeypatch):
    """No file is made any more; what is there can be written in place."""

    def opened(path, flags, *more, **named):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return REAL_OPEN(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", opened)


REAL_OPEN = os.open


@pytest.mark.parametrize("data", [b"", b"half", b"x" * 70000])
@pytest.mark.parametrize("name", [directory.BOOT, directory.CLOCK])
def test_a_damaged_counter_is_made_anew_with_a_warning(joined, name, data):
    joined.save_floor(ALPHA.chain.newest_date + 5)
    joined.next_boot(now_unix=9, entropy=entropy)
    (joined.path / name).write_bytes(data)
    again = StateDir.open(joined.path)
    boot = again.next_boot(now_unix=9, entropy=entropy)
    again.floor_unix()
    assert [f"{name}: damaged" in words and "made anew" in words for words in again.warnings()] == [True]
    # of what is left, the newest date is that of the credential, or the clock's own
    assert int.from_bytes(boot[:5]) >= (ALPHA.chain.newest_date if name == directory.BOOT else 10)
    assert again.floor_unix() >= ALPHA.chain.newest_date


def test_a_full_disk_keeps_the_counters_in_place_and_starts(joined, full_disk):
    with pytest.raises(StateError):
        joined.save_record("some", Counter(1))
    before = joined.next_boot(now_unix=9, entropy=entropy)
    assert int.from_bytes(before[:5]) >= 9, "no boot yet on this disk: it cannot be kept, and is used all the same"
    assert ["boot: cannot write" in words for words in joined.warnings()] == [True]


def test_a_counter_that_is_there_grows_on_a_full_disk(joined, request):
    joined.next_boot(now_unix=9, entropy=entropy)
    joined.save_floor(1)
    request.getfixturevalue("full_disk")
    joined.next_boot(now_unix=300, entropy=entropy)
    joined.save_floor(70000)
    again = StateDir.open(joined.path)
    assert again.next_boot(now_unix=9, entropy=entropy)[:5] == (301).to_bytes(5)
    assert again.floor_unix() == 70000
    assert again.warnings() == []


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_directory_that_takes_no_file_is_locked_all_the_same(joined, request, has_lock):
    if has_lock:
        (joined.path / directory.LOCK).touch(0o600)
    request.getfixturevalue("full_disk")
    joined.lock()
    with pytest.raises(StateError, match="in use by process"):
        StateDir.open(joined.path).lock()
    joined.close()
    StateDir.open(joined.path).lock()


@pytest.mark.parametrize("name", [directory.NODE_KEY, directory.ANCHOR, directory.CHAIN])
@pytest.mark.parametrize("data", [b"", b"half"])
def test_a_damaged_file_with_a_spare_is_put_back(joined, name, data):
    joined.guard()
    (joined.path / name).write_bytes(data)
    again = StateDir.open(joined.path)
    assert again.member().node_id == ALPHA.node_id
    assert [f"{name}: damaged" in words and "its spare is used" in words for words in again.warnings()] == [True]
    assert StateDir.open(joined.path).warnings() == []
    assert stat.S_IMODE((joined.path / directory.SPARE / name).stat().st_mode) == 0o600


def test_who_only_looks_reads_the_spare_and_changes_nothing(joined):
    joined.guard()
    for name in (directory.NODE_KEY, directory.ANCHOR, directory.CHAIN, directory.BOOT, directory.CLOCK):
        joined.atomic_write(name, b"half")
    kept = {each: each.read_bytes() for each in joined.path.rglob("*") if each.is_file()}
    looked = StateDir.open(joined.path, mends=False)
    assert looked.member().node_id == ALPHA.node_id
    looked.floor_unix()
    assert any("realm.chain: damaged" in words for words in looked.warnings())
    assert {each: each.read_bytes() for each in joined.path.rglob("*") if each.is_file()} == kept


@pytest.mark.parametrize("name", [directory.NODE_KEY, directory.CHAIN, directory.CLOCK])
def test_a_pipe_in_the_place_of_a_file_stops_nobody(joined, name):
    joined.remove(name)
    os.mkfifo(joined.path / name, 0o600)
    with pytest.raises(StateError, match="not a regular file"):
        joined.read(name)


def test_a_file_that_was_damaged_while_the_daemon_ran_takes_the_place_of_no_spare(joined, caplog):
    joined.guard()
    (joined.path / directory.CHAIN).write_bytes(b"half")
    joined.guard()  # as after a renewal whose writing failed
    assert "no spare of realm.chain" in caplog.text
    assert StateDir.open(joined.path).member().node_id == ALPHA.node_id


def test_a_missing_file_is_not_put_back(joined):
    joined.guard()
    joined.forget_realm()
    assert joined.member() is None
    (joined.path / directory.CHAIN).write_bytes(b"")
    (joined.path / directory.CHAIN).chmod(0o600)
    with pytest.raises(StateError, match="damaged"):
        joined.load_record(directory.CHAIN, Chain)


def test_the_root_key_has_no_spare(state):
    state.save_root_key(SigningKey.generate())
    state.guard()
    assert not (state.path / directory.SPARE / directory.ROOT_KEY).exists()


# ── the issuer's records ──


def test_issuer_records_are_kept_one_file_each(state):
    files = IssuerFiles(state)
    assert list(files.issued()) == files.invites() == []
    prefix = REALM.anchor.ipv4_prefix
    entry = Issued(ALPHA.node_id, "alpha", ("t",), (), prefix[5], 3, 1000, NOW_UNIX)
    invite, _ = make_invite(REALM.anchor, ALPHA.node_id, now_unix=NOW_UNIX, entropy=entropy, tags=("t",))
    with files.transaction():
        files.save_issued(entry)
        files.save_invite(invite)
    again = IssuerFiles(StateDir.open(state.path))
    assert list(again.issued()) == [entry]
    assert again.invites() == [invite]
    assert again.invite(invite.invite_id) == invite
    assert again.invite(bytes(8)) is None
    again.forget_invites_before(invite.not_after)
    assert files.invites() == [invite]
    again.forget_invites_before(invite.not_after + 1)
    files.forget_issued(ALPHA.node_id)
    assert list(files.issued()) == files.invites() == []


def test_records_another_process_changed_are_read_again(state):
    ours, theirs = IssuerFiles(state), IssuerFiles(StateDir.open(state.path))
    prefix = REALM.anchor.ipv4_prefix
    first = Issued(ALPHA.node_id, "alpha", (), (), prefix[5], 3, 1000, NOW_UNIX)
    ours.save_issued(first)
    assert list(ours.issued()) == list(theirs.issued()) == [first]
    second = Issued(ALPHA.node_id, "omega", (), (), prefix[5], 4, 1000, NOW_UNIX)
    theirs.save_issued(second)
    assert list(ours.issued()) == [second]
    theirs.forget_issued(ALPHA.node_id)
    assert list(ours.issued()) == []


def test_transactions_of_two_processes_do_not_overlap(state):
    # flock belongs to the open file, so two threads stand for two processes.
    inside, overlaps = [], []

    def count() -> None:
        files = IssuerFiles(StateDir.open(state.path))
        for _ in range(50):
            with files.transaction():
                inside.append(1)
                overlaps.append(len(inside) > 1)
                inside.pop()

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overlaps) == 150
    assert not any(overlaps)


def test_the_wait_for_the_transaction_of_a_stopped_process_is_bounded(state, monkeypatch):
    monkeypatch.setattr(directory, "EXCLUSIVE_WAIT_S", 0.0)
    with (
        IssuerFiles(state).transaction(),
        pytest.raises(StateError, match=r"issuer\.lock: held by another process"),
        IssuerFiles(StateDir.open(state.path)).transaction(),
    ):
        pass


def test_a_file_that_a_crash_left_is_not_read_as_a_record(state):
    files = IssuerFiles(state)
    invite, _ = make_invite(REALM.anchor, ALPHA.node_id, now_unix=NOW_UNIX, entropy=entropy)
    files.save_invite(invite)
    (state.path / "invites" / ".0000.invite.new").write_bytes(b"half")
    assert files.invites() == [invite]


def test_damaged_invitation_is_named(state):
    files = IssuerFiles(state)
    invite, _ = make_invite(REALM.anchor, ALPHA.node_id, now_unix=NOW_UNIX, entropy=entropy)
    files.save_invite(invite)
    (file,) = (state.path / "invites").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StateError, match=f"{file.name}: damaged"):
        files.invite(invite.invite_id)
