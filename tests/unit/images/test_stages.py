"""Stages of a build, kept under the hash of their inputs."""

from __future__ import annotations

import os

import pytest
from recipe.stages import KEPT_MAX, Stages, digest_of, is_of, key_of


@pytest.fixture
def said():
    return []


@pytest.fixture
def stages(tmp_path, said):
    return Stages(tmp_path / "cache", said.append)


@pytest.fixture
def later(tmp_path, said):
    """The stages of the next build."""
    return Stages(tmp_path / "cache", said.append)


def filled(text):
    def build(part):
        (part / "made").write_text(text)

    return build


def never(part):
    raise AssertionError("it is there already")


def test_a_key_depends_on_names_and_values_and_not_on_their_order():
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    others = [{"a": "1"}, {"a": "2", "b": "1"}, {"a": "12", "b": ""}, {"a1": "", "b": "2"}, {"ab": "12"}]
    assert len({key_of(each) for each in [{"a": "1", "b": "2"}, *others]}) == len(others) + 1


def test_a_digest_is_of_names_bytes_links_and_the_right_to_run(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("one")
    (tmp_path / "d/link").symlink_to("file")
    seen = {digest_of(tmp_path, ["d"])}
    (tmp_path / "d/file").chmod(0o755)
    seen.add(digest_of(tmp_path, ["d"]))
    (tmp_path / "d/file").write_text("two")
    seen.add(digest_of(tmp_path, ["d"]))
    (tmp_path / "d/link").unlink()
    (tmp_path / "d/link").symlink_to("elsewhere")
    seen.add(digest_of(tmp_path, ["d"]))
    (tmp_path / "d/file").rename(tmp_path / "d/name")
    seen.add(digest_of(tmp_path, ["d"]))
    assert len(seen) == 5


def test_a_digest_leaves_out_what_is_made_from_sources(tmp_path):
    (tmp_path / "a.py").write_text("x")
    before = digest_of(tmp_path, ["."])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_bytes(b"y")
    (tmp_path / "b.so").write_bytes(b"y")
    os.utime(tmp_path / "a.py", (1, 1))
    assert digest_of(tmp_path, ["."]) == before


def test_a_path_that_is_not_there_is_no_error(tmp_path):
    assert digest_of(tmp_path, ["none"]) == digest_of(tmp_path, [])


def test_a_stage_is_made_once_for_its_inputs(stages, later, said):
    made = stages.make("tree", {"a": "1"}, filled("x"), "making it")
    assert stages.make("tree", {"a": "1"}, never, "making it") == made
    assert len(said) == 2
    assert later.make("tree", {"a": "1"}, never, "making it") == made
    assert (made / "made").read_text() == "x"
    assert said[0] == "tree: making it"
    assert said[2:] == ["tree: kept"]
    assert later.seconds == {"tree": 0.0}


def test_other_inputs_make_it_again(stages):
    first = stages.make("tree", {"a": "1"}, filled("x"), "")
    second = stages.make("tree", {"a": "2"}, filled("y"), "")
    assert (first != second, (second / "made").read_text()) == (True, "y")


def test_a_stage_that_failed_is_not_found_by_the_next_build(stages):
    def fails(part):
        (part / "half").write_text("")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        stages.make("tree", {"a": "1"}, fails, "")
    assert [each.name for each in stages.make("tree", {"a": "1"}, filled("x"), "").iterdir()] != ["half"]


@pytest.mark.parametrize("damage", [b"", b"y", b"xx", None])
def test_a_stage_that_was_damaged_is_said_and_made_again(stages, later, said, damage):
    made = stages.make("tree", {"a": "1"}, filled("x"), "")
    if damage is None:
        (made / "made").unlink()
    else:
        (made / "made").write_bytes(damage)
    assert (later.make("tree", {"a": "1"}, filled("x"), "") / "made").read_text() == "x"
    assert "tree: damaged in the cache (made); it is made again" in said


def test_a_stage_without_its_list_of_files_is_made_again(stages, later):
    made = stages.make("tree", {"a": "1"}, filled("x"), "")
    (made / "SHA256SUMS").write_text("garbage")
    assert (later.make("tree", {"a": "1"}, filled("y"), "") / "made").read_text() == "y"


def test_old_runs_of_a_stage_are_removed_and_those_of_others_kept(stages):
    stages.make("tree-stable", {"a": "0"}, filled("x"), "")
    for number in range(KEPT_MAX + 2):
        stages.make("tree", {"a": str(number)}, filled("x"), "")
    left = sorted(each.name for each in stages.cache.iterdir())
    assert sum(is_of(each, "tree") for each in left) == KEPT_MAX
    assert sum(is_of(each, "tree-stable") for each in left) == 1


def test_names_of_stages_are_not_mixed_up():
    assert is_of("tree-0123456789abcdef", "tree")
    assert is_of("tree-0123456789abcdef.part", "tree")
    assert not is_of("tree-stable-0123456789abcdef", "tree")
    assert not is_of("tree-backports", "tree")
