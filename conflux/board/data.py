"""What is done with the data partition before anything uses it: it holds the only copy of the board's identity.

    check ─► mount ─► grow                                              the usual boot
      └► repair ─► repair by a spare superblock ─► mount
                                   └► rescue ─► keep the rescue on the other partition ─► make anew ─► mount ─► restore

It decides, step by step, by what the steps before came to.  Two rules stand above all others.  The board comes up
whatever the partition is like, if need be with its state in memory.  And a board that had an identity never gets a new
one silently: the partition is made anew only if the identity was read and is kept elsewhere, if there never was one, or
if a person put a new invitation on the card.

The power may fail at any step: the next boot begins at the first, and what was rescued is found where it was kept.  The
last thing that a restoring writes says of which rescue it was, so an old one never takes the place of newer state.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

# Exit codes of e2fsck(8), which are bits.
FIXED: Final = 1 | 2
UNCORRECTED: Final = 4


class Step(StrEnum):
    """What is to be done next."""

    CHECK = "check"  # e2fsck -p
    REPAIR = "repair"  # e2fsck -fy
    REPAIR_BY_SPARE = "repair-by-spare"  # the same, by a spare superblock
    MOUNT = "mount"
    RESCUE = "rescue"  # read what the list of state names out of a file system that does not mount
    KEEP_RESCUE = "keep-rescue"  # on the FAT partition, flushed
    FORMAT = "format"
    RESTORE = "restore"
    DROP_RESCUE = "drop-rescue"
    GROW = "grow"
    MOUNT_MEMORY = "mount-memory"
    RESTORE_TO_MEMORY = "restore-to-memory"
    DONE = "done"


class Rescue(StrEnum):
    """What became of a rescue."""

    IDENTITY = "identity"  # the node's key was read
    NO_IDENTITY = "no-identity"  # the file system was read, and there is none in it
    UNREADABLE = "unreadable"


class Seen(NamedTuple):
    """What is known so far; None: not looked at yet.

    present: there is a data partition.  is_kept: a whole rescue lies on the FAT partition.  is_restored: the data
    partition says that it was restored already; asked once that is mounted.  had_identity: the FAT partition says that
    this board is a node.  invited: the card has an invitation that was not used here.
    check, repair, spare: exit codes of e2fsck.  mounted, formatted, saved, restored: whether that succeeded.
    """

    present: bool
    is_kept: bool
    had_identity: bool
    invited: bool
    is_restored: bool = False
    check: int | None = None
    repair: int | None = None
    spare: int | None = None
    mounted: bool | None = None
    rescue: Rescue | None = None
    saved: bool | None = None
    formatted: bool | None = None
    restored: bool | None = None
    dropped: bool | None = None
    grown: bool | None = None
    in_memory: bool | None = None


def is_sound(code: int | None) -> bool:
    """Say whether a file system is sound after a check that ended with this code; None: there was none."""
    return code is not None and code & ~FIXED == 0


def next_step(seen: Seen) -> Step:
    """Return what is to be done next."""
    if seen.in_memory is not None:
        return _in_memory(seen)
    if not seen.present:
        return Step.MOUNT_MEMORY
    if seen.saved or (seen.is_kept and seen.formatted is not None):
        return _anew(seen)
    if seen.formatted is not None:
        return _fresh(seen)
    if seen.mounted is None:
        return _checked(seen)
    if seen.is_kept and not (seen.mounted and seen.is_restored):
        return _anew(seen)
    if not seen.mounted:
        return _unmountable(seen)
    if seen.is_kept and seen.dropped is None:  # the power failed before it was, or the FAT partition is read-only
        return Step.DROP_RESCUE
    return Step.GROW if seen.grown is None else Step.DONE


def _checked(seen: Seen) -> Step:
    """Check, then repair; what is left is tried to mount in any case."""
    if seen.check is None:
        return Step.CHECK
    if is_sound(seen.check):
        return Step.MOUNT
    if seen.repair is None:
        return Step.REPAIR
    if is_sound(seen.repair):
        return Step.MOUNT
    if seen.spare is None:
        return Step.REPAIR_BY_SPARE
    return Step.MOUNT


def _unmountable(seen: Seen) -> Step:
    if seen.check is not None and is_sound(seen.check) and seen.repair is None:
        return Step.REPAIR  # sound at a glance, and does not mount
    if seen.rescue is None:
        return Step.RESCUE
    if seen.rescue is Rescue.IDENTITY:
        return Step.MOUNT_MEMORY if seen.saved is False else Step.KEEP_RESCUE
    return Step.FORMAT if seen.invited or not seen.had_identity else Step.MOUNT_MEMORY


def _anew(seen: Seen) -> Step:
    """Make it anew, with what was rescued."""
    if seen.formatted is None:
        return Step.FORMAT
    if not seen.formatted:
        return Step.MOUNT_MEMORY
    if seen.mounted is not True:
        return Step.MOUNT if seen.mounted is None else Step.MOUNT_MEMORY
    if seen.restored is None:
        return Step.RESTORE
    if not seen.restored:
        return Step.MOUNT_MEMORY
    if seen.dropped is None:
        return Step.DROP_RESCUE
    return Step.GROW if seen.grown is None else Step.DONE


def _fresh(seen: Seen) -> Step:
    """Go on after it was made anew with nothing to restore."""
    if not seen.formatted or seen.mounted is False:
        return Step.MOUNT_MEMORY
    if seen.mounted is None:
        return Step.MOUNT
    return Step.GROW if seen.grown is None else Step.DONE


def _in_memory(seen: Seen) -> Step:
    has_rescue = seen.is_kept or seen.rescue is Rescue.IDENTITY
    return Step.RESTORE_TO_MEMORY if has_rescue and seen.restored is None and seen.in_memory else Step.DONE


def tried(seen: Seen, step: Step, result: bool | int | Rescue) -> Seen:
    """Return what is known after a step.  result: its exit code, what it found, or whether it succeeded."""
    field = _FIELDS[step]
    change: dict[str, Any] = {field: result}
    seen = seen._replace(**change)
    if step is Step.FORMAT or step is Step.REPAIR:
        return seen._replace(mounted=None)  # to be tried again
    if step is Step.MOUNT_MEMORY:
        return seen._replace(restored=None)
    return seen


_FIELDS: Final = {
    Step.CHECK: "check",
    Step.REPAIR: "repair",
    Step.REPAIR_BY_SPARE: "spare",
    Step.MOUNT: "mounted",
    Step.RESCUE: "rescue",
    Step.KEEP_RESCUE: "saved",
    Step.FORMAT: "formatted",
    Step.RESTORE: "restored",
    Step.DROP_RESCUE: "dropped",
    Step.GROW: "grown",
    Step.MOUNT_MEMORY: "in_memory",
    Step.RESTORE_TO_MEMORY: "restored",
}


def notices(seen: Seen) -> list[str]:
    """Return what a person should know of the data partition."""
    if seen.in_memory is not None:
        return [_memory_notice(seen)]
    if seen.formatted:
        if seen.restored:
            return ["the data partition was damaged and was made anew; the board's identity was kept"]
        if seen.had_identity:
            return [
                "the data partition was damaged beyond repair and was made anew, as the card has a new invitation: "
                "this board joins as a new node"
            ]
        return ["the data partition was damaged and was made anew; there was no identity on it"]
    found = []
    if seen.repair is not None or (seen.check is not None and seen.check & UNCORRECTED):
        found.append("the data partition was damaged and was repaired")
    if seen.grown is False:
        found.append("the data partition could not be grown to the size of the card")
    return found


def _memory_notice(seen: Seen) -> str:
    if not seen.present:
        return "there is no data partition: write the image to the card again; until then nothing is kept"
    if seen.restored:
        return (
            "the data partition is damaged: this board works until it is switched off; copy the card, then make it anew"
        )
    if seen.had_identity:
        return (
            "the data partition is damaged and the board's identity cannot be read: it is not made anew by itself. "
            "Put a new invitation into board.token to have this board join as a new node"
        )
    return "the data partition cannot be used: the card may be worn out; until it is replaced nothing is kept"
