"""How a card is divided: the partitions, and the configuration that genimage makes them by.

    bootconfig   FAT, 48 MiB       what people edit (conflux.toml), and what a board's firmware starts
    bootstate    raw, 1 MiB        which slot is next, and how many tries it has; a FAT where GRUB writes it
    boot_a/b     FAT, 96 MiB each  kernel and initrd of a slot
    system_a/b   erofs, 512 MiB    the root file system of a slot, read-only
    data         ext4, 64 MiB      what a board keeps; grows to the card's end at the first boot

Slot B is empty in a shipped image: an update fills it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from recipe.board import Board

STATE, STATE_MIB = "bootstate.img", 1
BOOT_MIB, SYSTEM_MIB, BOOTCONFIG_MIB, DATA_MIB = 96, 512, 48, 64
NAMESPACE = uuid.UUID("5b6a6c1e-2f0f-5a0e-9d53-0f1c6a9d6b11")  # chosen once; the identifiers of an image come from it

# Types of partitions, as GPT has them.
PLAIN_FAT = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.  image: the file it holds, or None; mib: its size."""

    name: str
    mib: int
    image: str | None
    fat: bool = False


PARTITIONS = (
    Partition("bootconfig", BOOTCONFIG_MIB, "bootconfig.vfat", fat=True),
    Partition("bootstate", STATE_MIB, STATE),
    Partition("boot_a", BOOT_MIB, "boot.vfat", fat=True),
    Partition("boot_b", BOOT_MIB, None, fat=True),
    Partition("system_a", SYSTEM_MIB, "system.img"),
    Partition("system_b", SYSTEM_MIB, None),
    Partition("data", DATA_MIB, "data.ext4"),
)


def identifier(seed: str, what: str) -> uuid.UUID:
    """Return an identifier that depends on nothing but its arguments.  seed: stands for an image."""
    return uuid.uuid5(NAMESPACE, f"{seed}/{what}")


def volume_id(seed: str, what: str) -> str:
    """Return the serial number of a FAT, eight hex digits."""
    return identifier(seed, what).hex[:8]


def disk_config(board: Board, seed: str) -> str:
    """Return genimage's configuration of the whole disk."""
    lines = [
        "image disk.img {",
        "\thdimage {",
        f'\t\tpartition-table-type = "{board.table}"',
        "\t\talign = 1M",
        f'\t\tdisk-uuid = "{identifier(seed, "disk")}"',
        *([f'\t\tdisk-signature = "0x{volume_id(seed, "disk")}"'] if board.table == "hybrid" else []),
        "\t}",
    ]
    for each in PARTITIONS:
        first = each is PARTITIONS[0]
        kind = PLAIN_FAT if each.fat else LINUX
        if first and board.efi:
            kind = EFI_SYSTEM
        lines += [
            f"\tpartition {each.name} {{",
            *([f'\t\timage = "{each.image}"'] if each.image else []),
            f"\t\tsize = {each.mib}M",
            f'\t\tpartition-type-uuid = "{kind}"',
            f'\t\tpartition-uuid = "{identifier(seed, each.name)}"',
            *(["\t\tbootable = true"] if first else []),
            # In the old table beside a GPT stands what the boot ROM reads, and nothing else.
            *(["\t\tpartition-type = 0xc"] if first and board.table == "hybrid" else []),
            "\t}",
        ]
    return "\n".join([*lines, "}", ""])


def grub_environment() -> bytes:
    """Return an environment block of GRUB's, as a new image has it: slot A is good, B is empty."""
    return b"# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n".ljust(1024, b"#")
