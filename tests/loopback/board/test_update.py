"""An update from its installation to its verdict, on a board whose RAUC writes into a folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from kit.slots import Slotted

from conflux.board import running, update
from conflux.board.running import Units
from conflux.board.trial import NO_START, Boot, Result, Trial
from conflux.cli import update as command
from conflux.errors import StateError, UserError


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slotted:
    slotted = Slotted(tmp_path)
    monkeypatch.setenv("PATH", slotted.path)
    monkeypatch.setattr(update, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(update, "_is_whole", lambda file, found, tell: True)  # test_bundles.py has real ones
    return slotted


def install(board: Slotted, version: str = "0.2.0") -> Trial:
    return update.install(board.board(), str(board.bundle(version)), lambda percent, words: None)


# ── installing ──


def test_an_update_is_written_then_remembered_and_only_then_the_next_to_start(board):
    board.daemon.reached = ["kitchen", "attic", "shed"]
    board.daemon.silent = {"attic"}
    trial = install(board)
    assert (trial.slot, trial.version, trial.former_slot, trial.former_version) == ("B", "0.2.0", "A", "0.1.0")
    assert [peer.name for peer in trial.peers] == ["kitchen", "shed"]
    assert trial.was_ready
    asked = board.get("asked")
    assert [line.split()[0] for line in asked] == ["info", "install", "status", "status"]
    assert asked[-1] == "status mark-active other with trial"
    assert board.stage() is Boot.PENDING


def test_what_was_wrong_before_the_update_is_remembered(board):
    board.daemon.up = False
    board.units = Units(True, ("own.service",))
    trial = install(board)
    assert (trial.was_ready, trial.failed, trial.peers) == (False, ("own.service",), ())


def test_a_daemon_that_hangs_was_not_ready(board):
    board.daemon.hangs = True
    assert not install(board).was_ready
    board.restart()
    board.judge()
    assert (board.restarts, "has not answered for 5 seconds" in result(board).why) == (1, True)


def test_peers_are_asked_again_for_some_seconds(board):
    board.daemon.reached = ["kitchen"]
    board.daemon.wakes_at = update.LOOKS
    assert [peer.name for peer in install(board).peers] == ["kitchen"]


def test_progress_is_told(board):
    told = []
    update.install(board.board(), str(board.bundle()), lambda percent, words: told.append((percent, words)))
    assert (40, "Copying image to boot.1") in told


@pytest.mark.parametrize(
    ("version", "compatible", "why"),
    [("0.0.9", "conflux-rpi4", "older than 0.1.0"), ("0.2.0", "conflux-rpi3", "it is for conflux-rpi3")],
)
def test_a_refused_bundle_writes_nothing(board, version, compatible, why):
    with pytest.raises(UserError, match=why) as refused:
        update.install(board.board(), str(board.bundle(version, compatible)), lambda percent, words: None)
    assert str(refused.value).startswith(str(board.folder))
    assert [line.split()[0] for line in board.get("asked")] == ["info"]
    assert board.stage() is Boot.NONE


def test_an_installation_that_fails_leaves_what_starts_next(board):
    board.set(fails="Failed updating slot system.1: Input/output error")
    with pytest.raises(UserError, match="changed, or damaged"):
        install(board)
    assert board.stage() is Boot.NONE
    assert board.get("order") == ["A", "B"]


def test_a_bundle_that_was_swapped_after_its_check_does_not_start(board):
    board.set(writes="0.0.1")
    with pytest.raises(UserError, match=r"it changed while it was installed: slot B has 0\.0\.1, not 0\.2\.0"):
        install(board)
    assert board.get("order") == ["A", "B"]


def test_a_bundle_that_is_not_there_is_said(board):
    with pytest.raises(UserError, match=r"none\.raucb: No such file"):
        update.install(board.board(), str(board.folder / "none.raucb"), lambda percent, words: None)


def test_while_an_update_is_judged_no_other_is_installed(board):
    install(board)
    assert board.restart() == "B"
    with pytest.raises(UserError, match="still being judged"):
        install(board, "0.3.0")


def test_another_update_may_take_the_place_of_one_that_waits(board):
    install(board)
    assert install(board, "0.3.0").version == "0.3.0"
    assert board.stage() is Boot.PENDING


def test_before_a_later_restart_the_peers_are_asked_again(board):
    install(board)
    board.daemon.reached = ["kitchen"]
    trial = update.remember_again(board.board(), lambda percent, words: None)
    assert [peer.name for peer in trial.peers] == ["kitchen"]
    assert (trial.slot, trial.version) == ("B", "0.2.0")


def test_without_an_update_there_is_nothing_to_restart_into(board):
    with pytest.raises(UserError, match="no update waits"):
        update.remember_again(board.board(), lambda percent, words: None)


# ── the verdict ──


def updated(board: Slotted, *peers: str) -> None:
    """Install an update on a board that reaches peers, and restart into it."""
    board.daemon.reached = list(peers)
    install(board)
    assert board.restart() == "B"
    assert board.stage() is Boot.TRIAL


def result(board: Slotted) -> Result:
    found = board.files.result()
    assert found is not None
    return found


def test_an_update_with_which_a_peer_answers_again_is_kept(board):
    updated(board, "kitchen", "attic")
    board.daemon.silent = {"kitchen"}
    assert board.judge() == 0
    assert (board.restarts, board.get("left")["B"]) == (0, 3)
    assert (result(board).good, board.notice(), board.stage()) == (True, "", Boot.NONE)
    assert board.restart() == "B"


def test_an_update_with_which_no_peer_answers_is_left_and_the_former_version_says_why(board):
    updated(board, "kitchen")
    board.daemon.silent = {"kitchen"}
    board.judge()
    assert 120 <= board.clock < 140
    assert (board.restarts, board.get("left")["B"]) == (1, 0)
    assert board.restart() == "A"
    assert board.stage() is Boot.FELL_BACK
    board.judge()
    why = "kitchen answered before the update, and not within 120 s after it"
    assert board.notice() == f"update: 0.2.0 was not taken, so 0.1.0 runs on: {why}\n"
    assert (result(board).good, board.stage()) == (False, Boot.NONE)
    assert board.get("left") == {"A": 3, "B": 0}


def test_a_unit_that_fails_with_the_update_is_a_reason(board):
    updated(board)
    board.units = Units(True, ("nftables.service",))
    board.judge()
    assert (board.restarts, result(board).why) == (1, "failed: nftables.service")


def test_a_daemon_that_does_not_come_up_is_a_reason(board):
    updated(board)
    board.daemon.runs = False
    board.judge()
    assert board.restarts == 1
    assert "the daemon was not ready within 300 s" in result(board).why


def test_an_update_that_never_starts_is_said_to_have_not_started(board):
    install(board)
    assert [board.restart() for _ in range(4)] == ["B", "B", "B", "A"]
    board.judge()
    assert NO_START in board.notice()


def test_a_verdict_that_rauc_does_not_take_is_a_bad_one(board):
    updated(board)
    board.set(fails="no such bus")
    board.judge()
    assert board.restarts == 1
    assert "could not be marked good" in result(board).why
    assert board.stage() is Boot.TRIAL  # the former version will say it


def test_the_notice_is_shown_again_at_each_boot_until_the_next_update(board):
    updated(board)
    board.units = Units(True, ("a.service",))
    board.judge()
    board.restart()
    board.judge()
    (board.folder / "run" / "notices" / "update").unlink()  # a restart: it is on a tmpfs
    board.restart()
    board.judge()
    assert "failed: a.service" in board.notice()
    board.units = Units(True, ())
    install(board, "0.3.0")
    assert board.notice() == ""


def test_a_person_may_keep_an_update_while_it_is_judged(board, monkeypatch):
    updated(board, "kitchen")
    board.daemon.silent = {"kitchen"}
    monkeypatch.setattr(board.files, "waits_for", lambda text: update.mark_good(board.board()))
    board.judge()
    assert (board.restarts, result(board).good, board.stage()) == (0, True, Boot.NONE)


def test_a_person_may_take_back_the_warning(board):
    updated(board)
    board.units = Units(True, ("a.service",))
    board.judge()
    board.restart()
    board.judge()
    update.mark_good(board.board())
    assert board.notice() == ""


def test_before_the_restart_the_judge_does_nothing(board):
    install(board)
    assert board.judge() == 0
    assert board.stage() is Boot.PENDING


def test_a_damaged_record_is_no_trial_and_no_failure(board):
    install(board)
    (board.folder / "data" / "trial.json").write_text('{"slot": "B"')
    board.restart()
    assert (board.judge(), board.stage()) == (0, Boot.NONE)
    assert not (board.folder / "data" / "trial.json").exists()  # boot-count gives the tries back from now on


@pytest.mark.parametrize("text", ['{"slot": "B"', "", '{"slot": "B", "version": 1}'])
def test_a_damaged_record_on_a_disk_that_is_only_read_costs_no_slot_its_tries(board, monkeypatch, text):
    install(board)
    (board.folder / "data" / "trial.json").write_text(text)
    monkeypatch.setattr(board.files, "_write", full)
    monkeypatch.setattr(board.files, "_remove", lambda place: None)
    for _ in range(5):
        assert board.restart() == "B"
        assert (board.judge(), board.restarts, board.get("left")["B"]) == (0, 0, 3)
        kept = board.folder / "run" / "kept"
        assert kept.exists()  # so conflux-give-up.timer restarts nothing
        kept.unlink()


def full(*_: object) -> None:
    raise StateError("No space left on device")


def test_a_full_disk_keeps_no_bad_update(board, monkeypatch):
    updated(board)
    board.units = Units(True, ("a.service",))
    monkeypatch.setattr(board.files, "_write", full)
    board.judge()
    assert (board.restarts, board.get("left")["B"]) == (1, 0)
    assert board.restart() == "A"
    assert (board.judge(), board.restarts) == (0, 1)


def test_a_full_disk_leaves_no_good_update(board, monkeypatch):
    updated(board)
    monkeypatch.setattr(board.files, "_write", full)
    assert (board.judge(), board.restarts, board.get("left")["B"]) == (0, 0, 3)
    assert board.stage() is Boot.NONE


def test_a_disk_that_is_only_read_leaves_no_good_update(board, monkeypatch):
    updated(board)
    monkeypatch.setattr(board.files, "_write", full)
    monkeypatch.setattr(board.files, "_remove", lambda place: None)
    for _ in range(4):
        assert (board.judge(), board.restarts, board.get("left")["B"]) == (0, 0, 3)
        kept = board.folder / "run" / "kept"
        assert kept.exists()  # so conflux-give-up.timer does nothing, although the trial is there
        kept.unlink()  # a restart: it is on a tmpfs
        assert (board.stage(), board.restart()) == (Boot.TRIAL, "B")


# ── going back by hand, and looking ──


def kept(board: Slotted, version: str = "0.2.0") -> None:
    install(board, version)
    board.restart()
    board.judge()
    assert result(board).good


def test_going_back_leads_to_the_flashed_version(board):
    kept(board)
    assert update.rollback(board.board()) == ("A", "0.1.0")
    assert board.restart() == "A"
    assert (board.judge(), board.notice()) == (0, "")


def test_an_update_that_waits_is_taken_back(board):
    install(board)
    assert update.rollback(board.board()) == ("A", "0.1.0")
    assert (board.stage(), board.restart()) == (Boot.NONE, "A")


def test_an_update_that_waits_is_taken_back_although_its_record_is_damaged(board):
    """Else the board would start what nobody has judged, and nothing would judge it."""
    install(board)
    (board.folder / "data" / "trial.json").write_text('{"slot": "B"')
    assert update.rollback(board.board()) == ("A", "0.1.0")
    assert (board.files.is_damaged(), board.restart()) == (False, "A")


def test_going_back_from_an_update_whose_record_is_damaged_leads_to_the_other_slot(board):
    install(board)
    board.restart()
    (board.folder / "data" / "trial.json").write_text('{"slot": "B"')
    board.set(versions={"A": "0.1.0", "B": "0.2.0"})
    assert update.rollback(board.board()) == ("A", "0.1.0")
    assert (board.files.is_damaged(), board.restart()) == (False, "A")


@pytest.mark.parametrize("waits", [True, False])
def test_going_back_restarts_the_board_only_into_another_slot(board, monkeypatch, capsys, waits):
    restarts = []
    monkeypatch.setattr(command, "_board", lambda options: board.board())
    monkeypatch.setattr(running, "reboot", lambda: restarts.append(board.restart()))
    if waits:
        install(board)
    else:
        kept(board)
    assert command.rollback(Namespace(reboot=True, json=False)) == 0
    assert restarts == ([] if waits else ["A"])
    assert ("the update was taken back" in capsys.readouterr().out) is waits


def test_going_back_may_be_asked_for_twice(board):
    kept(board)
    assert update.rollback(board.board()) == update.rollback(board.board()) == ("A", "0.1.0")
    assert board.restart() == "A"


def test_an_empty_slot_is_nothing_to_go_back_to(board):
    with pytest.raises(UserError, match="slot B has nothing to go back to"):
        update.rollback(board.board())


def test_going_back_ends_at_the_floor(board):
    kept(board)
    now = board.board()
    raised = now._replace(now=now.now._replace(image=now.now.image._replace(floor="0.2.0")))
    with pytest.raises(UserError, match=r"slot A: version 0\.1\.0 is older than 0\.2\.0"):
        update.rollback(raised)


def test_the_status_says_each_stage(board):
    got = update.status(board.board())
    assert (got.board, got.version, got.slot, got.floor, got.next_slot) == ("rpi4", "0.1.0", "A", "0.1.0", "A")
    assert (got.other_version, got.update, got.last) == (None, None, None)
    board.daemon.reached = ["kitchen"]
    install(board)
    got = update.status(board.board())
    assert got.update is not None
    assert (got.update.stage, got.update.peers, got.next_slot, got.other_version) == (
        Boot.PENDING,
        ("kitchen",),
        "B",
        "0.2.0",
    )
    board.restart()
    board.files.waits_for("an answer of kitchen")
    got = update.status(board.board())
    assert got.update is not None
    assert (got.update.stage, got.update.waits_for) == (Boot.TRIAL, "an answer of kitchen")
    board.judge()
    got = update.status(board.board())
    assert got.last is not None
    assert (got.version, got.update, got.last.good) == ("0.2.0", None, True)
