"""What goes into a root tree, and what is left out."""

from __future__ import annotations

import pytest
from kit.tree import TREE
from recipe.board import RecipeError, load, names
from recipe.card import BOOTLOADERS, floor_of, write
from recipe.debian import names_of, sources
from recipe.tree import REMOVED, copy_tree, fill, units_of

LISTS = ("images/packages.list", "images/tools.list")


@pytest.mark.parametrize("path", LISTS)
def test_a_list_names_each_package_once(path):
    found = names_of((TREE / path).read_text())
    assert len(found) == len(set(found)) > 5
    assert all(each == each.lower() and " " not in each for each in found)


def test_a_remark_is_no_package():
    assert names_of("# one\n\nzstd # two\n  dbus\n") == ["zstd", "dbus"]


def test_what_debian_mends_is_fetched_too():
    assert [line.split()[2] for line in sources("http://m", backports=False)] == [
        "trixie", "trixie-updates", "trixie-security",
    ]  # fmt: skip
    assert "deb http://m trixie-backports main non-free-firmware" in sources("http://m", backports=True)


def test_what_each_board_makes_itself_is_removed():
    assert {"etc/ssh/ssh_host_*", "etc/machine-id", "var/lib/systemd/random-seed", "etc/hostname"} <= set(REMOVED)


def test_units_of_presets_are_named_once_and_patterns_left_out():
    text = "# enable no\nenable a.service\n disable b.timer # why\nenable x@*.service\nenable a.service\nignore c\n"
    assert units_of([text, "enable d.service"]) == ["a.service", "b.timer", "d.service"]


def test_values_stand_where_their_names_were():
    assert fill("@BOARD@ at a@b.c", {"BOARD": "rpi3"}, "x") == "rpi3 at a@b.c"
    with pytest.raises(RecipeError, match="x: there is no @COLOUR@"):
        fill("@COLOUR@", {}, "x")


@pytest.mark.parametrize("name", names(TREE / "images/boards"))
def test_every_board_tells_rauc_who_keeps_its_state(name):
    assert load(TREE / "images/boards", name).state in BOOTLOADERS


def test_files_of_the_sources_are_roots_and_readable_and_programs_stay_programs(tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    (source / "data").mkdir(parents=True)
    (source / "data/.keep").touch()
    (source / "program").write_text("x")
    (source / "program").chmod(0o700)
    (source / "file").write_text("x")
    (source / "file").chmod(0o600)
    (source / "link").symlink_to("/dev/null")
    root.mkdir()
    (root / "file").write_text("before")
    copy_tree(source, root)
    assert (root / "data").is_dir()
    assert list((root / "data").iterdir()) == []
    assert (root / "program").stat().st_mode & 0o777 == 0o755
    assert (root / "file").stat().st_mode & 0o777 == 0o644
    assert ((root / "file").read_text(), str((root / "link").readlink())) == ("x", "/dev/null")


def test_a_file_that_trees_share_is_replaced_and_not_written_into(tmp_path):
    (tmp_path / "shared").write_text("x")
    (tmp_path / "own").hardlink_to(tmp_path / "shared")
    write(tmp_path / "own", "y")
    assert (tmp_path / "shared").read_text() == "x"


def test_a_tree_without_a_floor_takes_every_version(tmp_path):
    assert floor_of(tmp_path) == "0"
    assert floor_of(TREE)[0].isdigit()
