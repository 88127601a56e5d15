"""Policies on the disk: whole or not at all, and never believed without their signature."""

from kit.builders import NOW_UNIX, make_realm
from kit.published import CLOSED_TEXT, OPEN_TEXT, large_text, published

from conflux.realm.listbook import ListBook
from conflux.realm.policybook import KEPT_COUNT_MAX
from conflux.state.directory import StateDir
from conflux.state.policy_files import POLICIES, PolicyFiles, load_policies

REALM = make_realm()


def loaded(state: StateDir):
    return load_policies(PolicyFiles(state), ListBook(REALM.anchor, lambda: NOW_UNIX), lambda: NOW_UNIX)


def test_policy_survives_a_restart(tmp_path):
    state = StateDir.open(tmp_path / "state", create=True)
    book = loaded(state)
    book.learn(published(OPEN_TEXT, NOW_UNIX - 1))
    book.learn(published(large_text(), NOW_UNIX))
    again = loaded(state)
    assert again.current == published(large_text(), NOW_UNIX)
    assert again.earlier == (published(OPEN_TEXT, NOW_UNIX - 1),)


def test_damaged_and_strange_files_are_left_out(tmp_path, caplog):
    state = StateDir.open(tmp_path / "state", create=True)
    loaded(state).learn(published())
    (file,) = (tmp_path / "state" / POLICIES).iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    state.atomic_write(f"{POLICIES}/9-changed.policy", bytes(data))
    state.atomic_write(f"{POLICIES}/8-cut.policy", bytes(data[:100]))
    state.atomic_write(f"{POLICIES}/7-empty.policy", b"")
    assert loaded(state).current == published()
    assert "8-cut.policy: damaged" in caplog.text


def test_few_files_are_kept(tmp_path):
    state = StateDir.open(tmp_path / "state", create=True)
    book = loaded(state)
    for step in range(KEPT_COUNT_MAX + 2):
        book.learn(published(CLOSED_TEXT, NOW_UNIX - 20 + step))
    assert len(list((tmp_path / "state" / POLICIES).iterdir())) == KEPT_COUNT_MAX
