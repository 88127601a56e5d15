"""How a card is divided, and what genimage is told of it."""

from __future__ import annotations

import re

import pytest
from kit.tree import TREE
from recipe import layout
from recipe.board import load, names

BOARDS = TREE / "images/boards"
ORDER = ["bootconfig", "bootstate", "boot_a", "boot_b", "system_a", "system_b", "data"]
RAW_BYTES_MAX = 1.4e9  # what an image may take on a card


def test_partitions_have_the_names_that_board_and_bootloader_look_for():
    assert [each.name for each in layout.PARTITIONS] == ORDER


def test_the_slots_are_numbers_three_and_four_as_the_firmware_of_a_raspberry_pi_5_counts():
    said = (BOARDS / "rpi5/autoboot.txt").read_text()
    assert re.findall(r"boot_partition=(\d+)", said) == [str(ORDER.index(each) + 1) for each in ("boot_a", "boot_b")]


def test_both_slots_are_alike_and_the_second_is_empty():
    by_name = {each.name: each for each in layout.PARTITIONS}
    for kind in ("boot", "system"):
        first, second = by_name[f"{kind}_a"], by_name[f"{kind}_b"]
        assert (first.mib, first.fat) == (second.mib, second.fat)
        assert first.image is not None
        assert second.image is None


def test_an_image_fits_a_card_of_two_gigabytes():
    gaps_mib = 2  # the tables at both ends
    assert (sum(each.mib for each in layout.PARTITIONS) + gaps_mib) << 20 < RAW_BYTES_MAX


@pytest.mark.parametrize("name", names(BOARDS))
def test_genimage_is_told_of_every_partition_once(name):
    config = layout.disk_config(load(BOARDS, name), "1")
    assert re.findall(r"partition (\w+) \{", config) == ORDER
    assert config.count("{") == config.count("}")


def test_only_a_uefi_board_has_an_efi_system_partition():
    efi = [each for each in names(BOARDS) if layout.EFI_SYSTEM in layout.disk_config(load(BOARDS, each), "1")]
    assert efi == ["generic-uefi"]


def test_the_old_table_names_nothing_but_what_the_boot_rom_reads():
    config = layout.disk_config(load(BOARDS, "rpi3"), "1")
    assert 'partition-table-type = "hybrid"' in config
    assert config.count("partition-type = 0xc") == 1


def test_identifiers_are_those_of_the_image_and_of_nothing_else():
    board = load(BOARDS, "qemu-virt")
    assert layout.disk_config(board, "1") == layout.disk_config(board, "1")
    assert layout.disk_config(board, "1") != layout.disk_config(board, "2")
    found = re.findall(r'uuid = "([0-9a-f-]{36})"', layout.disk_config(board, "1"))
    own = [each for each in found if each not in (layout.PLAIN_FAT, layout.LINUX)]
    assert len(own) == len(set(own)) == len(ORDER) + 1


def test_a_volume_id_is_eight_hex_digits():
    assert re.fullmatch("[0-9a-f]{8}", layout.volume_id("1", "BOOT"))


def test_a_new_uefi_image_boots_slot_a_from_a_block_of_grubs():
    block = layout.grub_environment()
    assert len(block) == 1024
    text = block.decode()
    assert text.startswith("# GRUB Environment Block\n")
    assert dict(line.split("=") for line in text.splitlines()[1:-1]) == {
        "ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0",
    }  # fmt: skip
    assert set(text.splitlines()[-1]) == {"#"}
