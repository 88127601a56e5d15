"""Where things lie on a flashed board.  Tests have a board of their own, in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from conflux.board.mounts import MOUNTINFO, mounts

DATA_LABEL: Final = "data"
FAT_LABEL: Final = "bootconfig"
NODE_KEY: Final = "node.key"  # conflux/state/directory.py names these; importing it would load all of cryptography
CHAIN: Final = "realm.chain"


class Places(NamedTuple):
    """The directories and devices of a board."""

    root: Path = Path("/")
    data: Path = Path("/data")
    fat: Path = Path("/bootconfig")
    run: Path = Path("/run/conflux-board")
    devices: Path = Path("/dev/disk/by-partlabel")
    state_list: Path = Path("/usr/lib/conflux-board/state.list")
    zones: Path = Path("/usr/share/zoneinfo")
    leds: Path = Path("/sys/class/leds")
    blocks: Path = Path("/sys/class/block")
    console: Path = Path("/dev/console")
    mounts: Path = MOUNTINFO

    @property
    def own(self) -> Path:
        """What the programs of this room keep."""
        return self.data / "board"

    @property
    def state(self) -> Path:
        """The daemon's state directory, as it lies on the data partition."""
        return self.data / "conflux"

    @property
    def is_in_memory(self) -> bool:
        """Whether the data partition does not work, and memory is in its place: nothing in it outlives a restart."""
        kinds = [mount.kind for mount in mounts(self.mounts) if mount.place == str(self.data)]
        return kinds[-1:] == ["tmpfs"]

    @property
    def configuration(self) -> Path:
        """The daemon's configuration, as it lies on the data partition."""
        return self.data / "etc" / "conflux" / "conflux.toml"

    @property
    def notices(self) -> Path:
        """What a person should know, a file for each program: conflux/host/notices.py."""
        return self.run / "notices"


class Shared(NamedTuple):
    """A directory that both slots share.  at: on the board.  place: relative to the data partition."""

    at: Path
    place: str
    mode: int


def shared_of(text: str) -> list[Shared]:
    """Return what a list of state names.  Raises ValueError with the line that makes no sense."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3 or not words[0].startswith("/") or words[1].startswith("/") or ".." in words[1].split("/"):
            raise ValueError(f"not a line of the list of state: {line!r}")
        found.append(Shared(Path(words[0]), words[1], int(words[2], 8)))
    return found
