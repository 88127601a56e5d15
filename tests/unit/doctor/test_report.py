"""A report of a state directory that is another user's: what lies there for root to read is not read."""

from __future__ import annotations

import os

import pytest
from kit.builders import make_member, make_realm

from conflux.doctor import foreign, report
from conflux.doctor.subject import subject
from conflux.state import directory
from conflux.state.directory import StateDir

SECRET = "root:$6$salt$hash"


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path):
    (tmp_path / "shadow").write_text(SECRET)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / report.LOG_FILE).symlink_to(tmp_path / "shadow")
    lines = report.background_log(tmp_path / "state")
    assert SECRET not in "\n".join(lines)
    assert "not read" in lines[0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])  # opening the one waits, reading the other fails
def test_what_is_no_regular_file_in_the_place_of_the_log_is_not_read(tmp_path, make):
    make(tmp_path / report.LOG_FILE)
    assert "not read" in report.background_log(tmp_path)[0]


def test_of_a_huge_log_the_end_alone_is_read(tmp_path):
    path = tmp_path / report.LOG_FILE
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of which the disk holds nothing
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert len(foreign.end_of(path)) == foreign.END_BYTES_MAX
    assert report.background_log(tmp_path)[-1] == "the end"


def test_no_log_is_no_fault(tmp_path):
    assert report.background_log(tmp_path) == []


@pytest.mark.parametrize(
    ("owner", "directory_owner", "user", "is_read"),
    [(1000, 1000, 0, True), (0, 1000, 0, False), (0, 0, 0, True), (1000, 0, 0, True), (0, 1000, 1000, True)],
)
def test_a_file_of_root_in_a_directory_of_another_is_not_read(owner, directory_owner, user, is_read):
    assert foreign.is_of_directory(owner, directory_owner, user=user) is is_read


def test_the_doctor_repairs_nothing_and_tells_of_the_damage(tmp_path):
    state, member = StateDir.open(tmp_path / "state", create=True), make_member(make_realm(), "alpha")
    state.save_record(directory.NODE_KEY, directory.KeyFile(member.keys.signing.seed))
    state.save_member(member)
    state.guard()
    state.atomic_write(directory.CHAIN, b"half")
    seen = subject(None, state.path)
    assert seen.member is not None
    assert "realm.chain: damaged" in seen.untold
    assert (state.path / directory.CHAIN).read_bytes() == b"half"


@pytest.mark.parametrize("name", ["log.txt", "status.json", "network.txt", "state.txt", "crashes.txt", "doctor.txt"])
def test_a_short_secret_is_taken_out_of_the_configuration_alone(name):
    secrets = ("pi", "raspberry")
    assert list(report.known_in(name, secrets)) == ["raspberry"]
    assert list(report.known_in(report.CONFIGURATION, secrets)) == ["pi", "raspberry"]
