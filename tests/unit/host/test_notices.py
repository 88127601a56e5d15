"""What the programs around the daemon have a person know is read with bounds, whatever is in its files."""

from __future__ import annotations

from conflux.host import notices as module
from conflux.host.notices import notices


def test_a_host_that_is_no_flashed_board_has_none(tmp_path):
    assert notices(tmp_path / "absent") == ()


def test_every_line_of_every_file_is_a_notice(tmp_path):
    (tmp_path / "update").write_text("fell back to 0.1\n")
    (tmp_path / "card").write_text("conflux.toml:2: unknown key\n\n  conflux.toml:9: bad zone \n")
    (tmp_path / ".card.new").write_text("half")
    assert notices(tmp_path) == ("conflux.toml:2: unknown key", "conflux.toml:9: bad zone", "fell back to 0.1")


def test_what_is_not_text_is_escaped_and_bounded(tmp_path):
    (tmp_path / "card").write_bytes(b"\x1b[31m\xff\n" + b"x" * 10_000 + b"\n")
    found = notices(tmp_path)
    assert all(line.isprintable() and len(line) <= module.LINE_CHARS_MAX for line in found)
    assert found[0].startswith("\\x1b[31m")


def test_no_more_lines_than_a_person_reads(tmp_path):
    for number in range(40):
        (tmp_path / f"n{number:02}").write_text("one\n" * 40)
    (tmp_path / "a-directory").mkdir()
    assert len(notices(tmp_path)) == module.LINE_COUNT_MAX
