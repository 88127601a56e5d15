"""What differs between boards, as images/boards says it."""

from __future__ import annotations

import pytest
from kit.tree import TREE
from recipe.board import GENERATED, RecipeError, load, names, parse, placed

BOARDS = TREE / "images/boards"
MINIMAL = 'title = "X"\nkernel = "stable"\nbootconfig = []\nslot = ["kernel:vmlinuz"]\n'


def test_every_board_of_the_help_is_there_and_no_other():
    makefile = (TREE / "Makefile").read_text()
    offered = makefile.partition("make image          BOARD=")[2].partition(":")[0]
    assert sorted(offered.split("|")) == names(BOARDS)


@pytest.mark.parametrize("name", names(BOARDS))
def test_files_that_a_board_takes_from_its_folder_are_there(name):
    board = load(BOARDS, name)
    own = [placed(each)[0].partition(":")[2] for each in board.bootconfig + board.slot if each.startswith("board:")]
    assert [each for each in own if not (BOARDS / name / each).is_file()] == []


@pytest.mark.parametrize("name", names(BOARDS))
def test_every_file_of_a_board_is_taken(name):
    board = load(BOARDS, name)
    taken = {placed(each)[0].partition(":")[2] for each in board.bootconfig + board.slot} | {"board.toml"}
    assert sorted(each.name for each in (BOARDS / name).iterdir() if each.name not in taken) == []


@pytest.mark.parametrize("name", names(BOARDS))
def test_a_slot_has_a_kernel_and_its_initrd(name):
    assert {"kernel:vmlinuz", "kernel:initrd.img"} <= set(load(BOARDS, name).slot)


@pytest.mark.parametrize("name", names(BOARDS))
def test_a_board_with_uboot_has_the_one_script(name):
    board = load(BOARDS, name)
    assert ("boot.scr" in board.bootconfig) == (board.state == "uboot")
    assert set(GENERATED) == {"boot.scr", "boot.efi"}


def test_a_board_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(RecipeError, match=r"no board 'rpi9': BOARD=generic-uefi\|"):
        load(BOARDS, "rpi9")


@pytest.mark.parametrize("name", ["../boards/rpi3", "", "RPI3", "rpi3\n"])
def test_a_name_is_never_a_path(name):
    with pytest.raises(RecipeError, match="there is no board"):
        load(BOARDS, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("colour = 1\n", "there is no key colour"),
        ('name = "other"\n', "there is no key name"),
        ("efi = 1\n", "efi is of type bool"),
        ("devices = [1]\n", "devices is a list of texts"),
        ('table = "mbr"\n', "table is gpt or hybrid"),
        ("title = ", "board.toml: "),
    ],
)
def test_a_wrong_key_is_named_with_its_file(change, said):
    with pytest.raises(RecipeError, match=said) as refused:
        parse("x", MINIMAL + change, "x/board.toml")
    assert str(refused.value).startswith("x/board.toml: ")


@pytest.mark.parametrize("word", ["vmlinuz", "home:x", "board:", "board:../../etc/shadow", "firmware:a/../../b"])
def test_a_file_comes_from_a_known_place(word):
    with pytest.raises(RecipeError, match="not SOURCE:PATH"):
        parse("x", MINIMAL.replace("bootconfig = []", f'bootconfig = ["{word}"]'), "x")


@pytest.mark.parametrize(
    ("each", "word", "target"),
    [
        ("boot.scr", "boot.scr", "boot.scr"),
        ("firmware:usr/lib/raspi-firmware/start.elf", "firmware:usr/lib/raspi-firmware/start.elf", "start.elf"),
        ("boot.efi > EFI/BOOT/BOOTAA64.EFI", "boot.efi", "EFI/BOOT/BOOTAA64.EFI"),
    ],
)
def test_a_file_goes_to_the_top_unless_it_is_said_where(each, word, target):
    assert placed(each) == (word, target)


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x"])
def test_a_file_never_leaves_its_partition(target):
    with pytest.raises(RecipeError, match="is no place on a partition"):
        parse("x", MINIMAL.replace("bootconfig = []", f'bootconfig = ["boot.scr > {target}"]'), "x")


def test_what_has_to_be_said_is_missed():
    with pytest.raises(RecipeError, match="kernel is missing"):
        parse("x", MINIMAL.replace('kernel = "stable"\n', ""), "x")
    with pytest.raises(RecipeError, match="kernel is stable or backports"):
        parse("x", MINIMAL.replace("stable", "newest"), "x")
