"""The state directory under a careless owner, a failing card, a crash, and a second process."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from builders import NOW_UNIX, make_member, make_realm, node_keys

from conflux.errors import LocalProtocolError, StateError
from conflux.realm import store
from conflux.realm.anchor import RealmAnchor
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import make_invite
from conflux.realm.issuer import Issued
from conflux.realm.issuer_files import IssuerFiles
from conflux.realm.store import Counter, KeyFile, StateDir

REALM = make_realm()
ALPHA = make_member(REALM, "alpha")


def entropy(size: int) -> bytes:
    return bytes(range(1, size + 1))


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir.open(tmp_path / "state", create=True)


@pytest.fixture
def joined(state: StateDir) -> StateDir:
    state.save_record(store.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
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
        "import sys; from pathlib import Path; from conflux.realm.store import StateDir;"
        "state = StateDir.open(Path(sys.argv[1])); state.lock(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=f"in use by process {holder.pid}$"):
            state.lock()
        holder.kill()
    state.lock()  # the kernel let go of a killed process's lock
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


def test_locking_twice_is_our_bug(state):
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


@pytest.mark.parametrize("name", [store.NODE_KEY, store.CHAIN, store.BOOT])
def test_file_open_to_others_is_refused(joined, name):
    joined.next_boot(now_unix=1, entropy=entropy)
    (joined.path / name).chmod(0o644)
    with pytest.raises(StateError, match=f"{name}: open to others .mode 0644.; chmod 600"):
        joined.read(name)


def test_half_written_file_of_a_crash_is_never_read(joined):
    # What a crash between writing and renaming leaves.
    (joined.path / f".{store.NODE_KEY}.new").write_bytes(b"half")
    assert joined.node_keys().node_id == ALPHA.node_id
    joined.atomic_write(store.BOOT, b"x")


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


@pytest.mark.parametrize("name", [store.NODE_KEY, store.ANCHOR, store.CHAIN])
def test_every_cut_of_a_file_is_noticed(joined, name):
    data = (joined.path / name).read_bytes()
    for size in {0, 1, 7, 8, 9, len(data) // 2, len(data) - 8, len(data) - 1}:
        (joined.path / name).write_bytes(data[:size])
        with pytest.raises(StateError, match=f"{name}: damaged"):
            joined.member()


@pytest.mark.parametrize("name", [store.NODE_KEY, store.ANCHOR, store.CHAIN])
def test_every_flipped_bit_of_a_file_is_noticed(joined, name):
    data = (joined.path / name).read_bytes()
    for index in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[index] ^= 4
        (joined.path / name).write_bytes(flipped)
        with pytest.raises(StateError, match=f"{name}: damaged"):
            joined.member()


def test_file_that_is_too_large_is_not_read_into_memory(state):
    (state.path / "some").write_bytes(bytes(store.FILE_BYTES_MAX + 1))
    (state.path / "some").chmod(0o600)
    with pytest.raises(StateError, match="too large"):
        state.read("some")


def test_file_of_another_kind_is_named(state):
    state.save_record(store.NODE_KEY, Counter(1))
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
    state.save_record(store.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
    state.save_record(store.ANCHOR, make_realm("elsewhere").anchor)
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
    joined.remove(store.NODE_KEY)
    with pytest.raises(StateError, match=r"node\.key: missing"):
        joined.member()


def test_credential_of_another_node_or_realm_is_named(joined):
    joined.save_record(store.CHAIN, make_member(REALM, "beta").chain)
    with pytest.raises(StateError, match=r"realm\.chain: no credential of ours"):
        joined.member()
    joined.save_record(store.CHAIN, make_member(make_realm("elsewhere"), "alpha").chain)
    with pytest.raises(StateError, match=r"realm\.chain: no credential of ours"):
        joined.member()


def test_forged_anchor_is_named(joined):
    anchor = ALPHA.anchor
    forged = RealmAnchor(anchor.root_public, "evil", anchor.ipv4_prefix, anchor.signature)
    joined.save_record(store.ANCHOR, forged)
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


def test_clock_floor_is_kept(state):
    assert state.floor_unix() == 0
    state.save_floor(NOW_UNIX)
    assert StateDir.open(state.path).floor_unix() == NOW_UNIX


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


def test_transaction_of_a_stopped_process_is_not_waited_for_for_ever(state, monkeypatch):
    monkeypatch.setattr(store, "EXCLUSIVE_WAIT_S", 0.0)
    with (
        IssuerFiles(state).transaction(),
        pytest.raises(StateError, match=r"issuer\.lock: held by another process"),
        IssuerFiles(StateDir.open(state.path)).transaction(),
    ):
        pass


def test_what_a_crash_left_is_not_taken_for_a_record(state):
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
