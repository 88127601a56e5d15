"""Installs an update: checks the bundle, has RAUC write it, and remembers what has to work after the restart."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from conflux.api.client import ApiClient
from conflux.board import overlay, verity
from conflux.board.fetch import Tell, fetch, is_url
from conflux.board.rauc import Rauc, Refused
from conflux.board.rauc_words import CHANGED, Bundle
from conflux.board.release import refusal
from conflux.board.running import Running, Units
from conflux.board.trial import Boot, Result, Trial, meaning
from conflux.board.update_files import UpdateFiles
from conflux.errors import UserError, printable, words_of

FETCHED: Final = "fetched.raucb"
SIGNATURE_BYTES_MAX: Final = 1 << 20
LENGTH_BYTES: Final = 8  # at the end of a bundle: how long the signature before it is
MIB: Final = 1 << 20
LOOKS: Final = 5  # chosen: a moment without an answer is no reason to judge an update by less
LOOK_AGAIN_S = 2.0


class Board(NamedTuple):
    """What an update has to do with."""

    now: Running
    rauc: Rauc
    files: UpdateFiles
    client: ApiClient
    units: Callable[[], Units]


def install(board: Board, word: str, tell: Tell) -> Trial:
    """Install the bundle that a person names, by file or URL.  tell: takes percent, and words.

    Raises UserError; what runs is untouched then.
    """
    require_verdict(board)
    with _file(board, word, tell) as file:
        try:
            found = check(board, file, tell)
            board.rauc.install(file, tell)
        except Refused as error:
            raise UserError(f"{word}: {error}") from None
    slots = board.rauc.slots()
    slot = "B" if board.now.slot == "A" else "A"
    # RAUC read the file anew: if another was in its place by then, its version was not looked at.
    if (written := slots.version(slot)) != found.version:
        raise UserError(f"{word}: it changed while it was installed: slot {slot} has {written}, not {found.version}")
    trial = remember(board, slot, found.version, tell)
    board.rauc.mark("active", "other")
    return trial


def require_verdict(board: Board) -> None:
    """Raise UserError while an update is judged: the slot that it would fall back to is not written then."""
    trial = board.files.trial()
    if trial is not None and meaning(trial, board.now.slot, board.now.boot) not in (Boot.NONE, Boot.PENDING):
        raise UserError(f"the update to {trial.version} is still being judged: conflux update --status says what for")


def remember(board: Board, slot: str, version: str, tell: Tell) -> Trial:
    """Keep what works now, so that the update can be judged by it.  Raises StateError."""
    tell(0, "asking the other nodes")
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_AGAIN_S)
        daemon = overlay.look(board.client)
        if peers := overlay.answering(board.client, daemon.peers):
            break
    trial = Trial(
        slot=slot,
        version=version,
        former_slot=board.now.slot,
        former_version=board.now.image.version,
        boot=board.now.boot,
        was_ready=daemon.runs and not daemon.lacks,
        failed=board.units().failed,
        peers=peers,
    )
    board.files.begin(trial)
    return trial


def remember_again(board: Board, tell: Tell) -> Trial:
    """Keep what works now, right before the restart into the update that is installed.  Raises UserError if none is."""
    trial = board.files.trial()
    if trial is None or meaning(trial, board.now.slot, board.now.boot) is not Boot.PENDING:
        raise UserError("no update waits for a restart: conflux update FILE installs one")
    return remember(board, trial.slot, trial.version, tell)


def mark_good(board: Board) -> None:
    """Keep what runs: end its trial, and say no more what was wrong with another update.  Raises UserError."""
    board.rauc.mark("good", "booted")
    trial = board.files.trial()
    if trial is not None and meaning(trial, board.now.slot, board.now.boot) is Boot.TRIAL:
        board.files.end(Result(trial.version, trial.slot, trial.former_version, True, "", int(time.time())))
    else:
        board.files.dismiss()


def rollback(board: Board) -> tuple[str, str]:
    """Have the other slot be the next one; if an update waits there for a restart, have what runs stay instead.

    Return the next slot, and its version.  Raises UserError.
    """
    require_verdict(board)
    slots = board.rauc.slots()
    waits = board.files.trial() is not None or (board.files.is_damaged() and slots.next != board.now.slot)
    if waits:  # it has not been judged, so it is nothing to go back to
        board.rauc.mark("active", "booted")
        board.files.forget_trial()
        return board.now.slot, board.now.image.version
    slot, result = "B" if board.now.slot == "A" else "A", board.files.result()
    version = slots.version(slot)
    if version is None and result is not None and result.good and result.slot == board.now.slot:
        version = result.former_version  # it was flashed, and RAUC knows only what it wrote itself
    if version is None:
        raise UserError(f"slot {slot} has nothing to go back to")
    if (why := refusal(board.now.image.compatible, version, board.now.image)) is not None:
        raise UserError(f"slot {slot}: {why}")
    board.rauc.mark("active", "other")
    board.files.forget_trial()
    return slot, version


def check(board: Board, file: Path, tell: Tell) -> Bundle:
    """Return a bundle that this board takes: signed, complete, unchanged, for this board, not too old.

    Raises Refused, whose text says why, for a person.
    """
    tell(0, "checking the signature")
    found = board.rauc.info(file)
    why = refusal(found.compatible, found.version, board.now.image)
    if why is not None:
        raise Refused(why)
    if not _is_whole(file, found, tell):
        raise Refused(CHANGED)
    return found


def _is_whole(file: Path, found: Bundle, tell: Tell) -> bool:
    """Say whether the content of a bundle is what its signature covers."""
    with file.open("rb") as bundle:
        end = bundle.seek(-LENGTH_BYTES, os.SEEK_END)
        signature_bytes = int.from_bytes(bundle.read(LENGTH_BYTES), "big")
        left = length = end - signature_bytes - found.tree_bytes
        if not 0 < signature_bytes <= SIGNATURE_BYTES_MAX or length <= 0 or length % verity.BLOCK_BYTES:
            return False
        bundle.seek(0)
        tree = verity.Tree(found.salt)
        while left:
            part = bundle.read(min(left, MIB))
            if not part:
                return False
            for at in range(0, len(part), verity.BLOCK_BYTES):
                tree.add(part[at : at + verity.BLOCK_BYTES])
            left -= len(part)
            tell(100 - 100 * left // length, "checking the content")
    return tree.root() == found.root


@contextlib.contextmanager
def _file(board: Board, word: str, tell: Tell) -> Iterator[Path]:
    """Give the file of a bundle; one that was fetched is removed afterwards.  Raises UserError."""
    if not is_url(word):
        try:
            with Path(word).open("rb") as file:
                file.read(1)
        except OSError as error:
            raise UserError(f"{printable(word)}: {words_of(error) if error.errno else error}") from None
        yield Path(word).absolute()
        return
    place = board.files.folder / FETCHED
    fetch(word, place, tell)
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)


class WaitingUpdate(NamedTuple):
    """One without a verdict.  waits_for: what the judge waits for, or "".  peers: who answered before, by name."""

    version: str
    slot: str
    stage: Boot
    waits_for: str
    peers: tuple[str, ...]


class JudgedUpdate(NamedTuple):
    """The verdict about the last update.  at: Unix seconds."""

    version: str
    slot: str
    good: bool
    why: str
    at: int


class UpdateStatus(NamedTuple):
    """The answer to `conflux update --status`.  other_version: of the other slot; None: RAUC wrote nothing there."""

    board: str
    version: str
    slot: str
    floor: str
    next_slot: str | None
    other_version: str | None
    update: WaitingUpdate | None
    last: JudgedUpdate | None


def status(board: Board) -> UpdateStatus:
    """Return what runs, what comes next, and what became of the last update.  Raises UserError."""
    now, trial, result, slots = board.now, board.files.trial(), board.files.result(), board.rauc.slots()
    stage = meaning(trial, now.slot, now.boot)
    return UpdateStatus(
        board=now.image.board,
        version=now.image.version,
        slot=now.slot,
        floor=now.image.floor,
        next_slot=slots.next,
        other_version=slots.version("B" if now.slot == "A" else "A"),
        update=None
        if trial is None
        else WaitingUpdate(
            trial.version,
            trial.slot,
            stage,
            board.files.waited_for() if stage is Boot.TRIAL else "",
            tuple(peer.name for peer in trial.peers),
        ),
        last=None if result is None else JudgedUpdate(result.version, result.slot, result.good, result.why, result.at),
    )
