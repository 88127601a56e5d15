"""A flashed board that is to become a new one: its card was copied, or it is given away.

What makes it this board is forgotten: the node's keys and all of its state, the machine id, the ssh host key, the seed
of randomness, and what the FAT partition says of it.  Settings of the card stay: the Wi-Fi, who may log in.

A mark on the data partition decides.  The command sets it and starts the board again; first boot then erases, and
removes the mark last.  So the power may fail at any moment: the board is the old one, or is still to become a new one.
"""

from __future__ import annotations

from typing import Final

from conflux.board import files
from conflux.board.places import Places
from conflux.errors import StateError, words_of
from conflux.state import erasing

MARK: Final = "renewing"  # the initramfs reads it too, and gives the board a new machine id
MACHINE_ID: Final = "machine-id"
CARD_MARK: Final = "renewing-card"  # the card is still to forget; it may be unreadable today
SEED: Final = "systemd/random-seed"
ON_FAT: Final = (files.IDENTITY, files.RESCUE, files.LOG)


def is_begun(places: Places) -> bool:
    """Say whether this board is to become a new one."""
    return (places.own / MARK).exists()


def begin(places: Places) -> None:
    """Decide that this board becomes a new one at its next start.  Raises StateError."""
    if places.is_in_memory:
        raise StateError(
            f"{places.data} is in memory, as the card's data partition does not work, so the next start would not know "
            "of it: put another card in; nothing was changed"
        )
    try:
        files.write(places.own / MARK, b"")
    except OSError as error:
        raise StateError(f"{places.own / MARK}: cannot write: {words_of(error)}; nothing was changed") from None


def finish(places: Places, fat: files.Fat | None) -> bool:
    """Forget what makes this the board that it was, if that is decided; return whether it was.

    Called before anything of it is used, and safe to repeat.  Raises OSError and StateError: the next boot goes on.
    """
    begun = is_begun(places)
    if begun:
        if places.state.is_dir():
            erasing.begin(places.state)
            erasing.finish(places.state)
        files.remove(places.own / MACHINE_ID)
        if (places.own / "ssh").is_dir():
            for key in sorted((places.own / "ssh").glob("ssh_host_*")):
                files.remove(key)
        files.remove(places.data / SEED)
        files.write(places.own / CARD_MARK, b"")
        files.remove(places.own / MARK)
    if fat is not None and (places.own / CARD_MARK).exists():
        for name in ON_FAT:
            fat.remove(name, secret=name == files.RESCUE)  # it holds the node's key
        files.remove(places.own / CARD_MARK)
    return begun
