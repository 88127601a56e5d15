"""The record of an issuer on disk: crashes in the middle of a line, segments that go, a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, signing_key
from kit.office import REALM

from conflux.errors import StateError
from conflux.realm.audit import Act, Entry, note, verified
from conflux.state import audit_files
from conflux.state.audit_files import AuditFiles
from conflux.state.directory import StateDir

KEY = signing_key("issuer")
REALM_ID = REALM.anchor.realm_id


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir.open(tmp_path / "state", create=True)


def write(state: StateDir, count: int = 1, detail: str = "d") -> AuditFiles:
    log = AuditFiles(state, REALM_ID)
    for _ in range(count):
        note(log, KEY, REALM_ID, Act.RENEWED, at=NOW_UNIX, detail=detail)
    return log


def read(state: StateDir) -> list[Entry]:
    return list(verified(AuditFiles(state, REALM_ID).lines(), KEY.public, REALM_ID))


def segments(state: StateDir) -> list[Path]:
    return sorted((state.path / f"audit-{REALM_ID.hex()[:16]}").iterdir())


def test_lines_of_several_processes_make_one_record(state):
    for _ in range(3):
        write(StateDir.open(state.path), 2)
    assert [entry.number for entry in read(state)] == [1, 2, 3, 4, 5, 6]
    (segment,) = segments(state)
    assert segment.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_torn_last_line_is_cut_off_and_the_next_entry_says_so(state, kept, caplog):
    write(state, 3)
    (segment,) = segments(state)
    line = segment.read_bytes().splitlines(keepends=True)[-1]
    torn = line[:kept]
    with segment.open("ab") as file:
        file.write(torn)
    assert len(read(state)) == 3, "whoever reads leaves it out"
    write(state)
    entries = read(state)
    expected = ["renewed"] * 4 if not torn else [*["renewed"] * 3, "repaired", "renewed"]
    assert [entry.what for entry in entries] == expected
    if torn:
        assert f"{len(torn)} bytes of a torn line" in caplog.text
        assert f"{len(torn)} bytes" in entries[3].detail


def test_a_first_line_that_was_torn_leaves_an_empty_record(state):
    write(state)
    (segment,) = segments(state)
    segment.write_bytes(segment.read_bytes()[:50])
    write(state)
    assert [entry.what for entry in read(state)] == ["repaired", "renewed"]


def test_a_last_line_that_is_damaged_is_named_and_nothing_is_added(state):
    write(state, 2)
    (segment,) = segments(state)
    data = bytearray(segment.read_bytes())
    data[-40:-4] = b"!" * 36
    segment.write_bytes(bytes(data))
    with pytest.raises(StateError, match=f"{segment.name}: its last line is damaged"):
        write(state)
    assert segment.read_bytes() == bytes(data)


def test_segments_are_bounded_and_the_oldest_goes_and_what_is_left_holds(state, monkeypatch):
    monkeypatch.setattr(audit_files, "SEGMENT_BYTES_MAX", 2000)
    monkeypatch.setattr(audit_files, "SEGMENT_COUNT_MAX", 3)
    write(state, 60)
    assert len(segments(state)) == 3
    assert max(segment.stat().st_size for segment in segments(state)) <= 2000
    entries = read(state)
    assert entries[0].number > 1
    assert entries[-1].number == 60


def test_a_segment_that_is_missing_in_the_middle_is_found(state, monkeypatch):
    monkeypatch.setattr(audit_files, "SEGMENT_BYTES_MAX", 2000)
    write(state, 30)
    segments(state)[1].unlink()
    with pytest.raises(Exception, match="missing"):
        read(state)


def test_a_write_that_fails_leaves_the_record_as_it_was(state, monkeypatch):
    write(state, 2)
    (segment,) = segments(state)
    before = segment.read_bytes()
    written = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written(fd, data[: len(data) // 2]))
    with pytest.raises(StateError, match="cannot write"):
        write(state)
    monkeypatch.undo()
    assert segment.read_bytes() == before
    write(state)
    assert len(read(state)) == 3


def test_records_of_two_realms_in_one_directory_are_apart(state):
    write(state, 2)
    other = AuditFiles(state, type(REALM_ID)(bytes(16)))
    assert (other.head().number, list(other.lines())) == (0, [])
