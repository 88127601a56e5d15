"""`conflux update`: what a person reads."""

from __future__ import annotations

import json

import pytest
from kit.records import misfits

from conflux.board import running
from conflux.board.release import Image
from conflux.board.running import Running, Units
from conflux.board.trial import Boot
from conflux.board.update import JudgedUpdate, UpdateStatus, WaitingUpdate
from conflux.cli import parser, update
from conflux.cli.grammar import EXIT_USAGE
from conflux.cli.observe import print_json
from conflux.cli.update import Updated, describe_rollback, describe_status, describe_updated

STATUS = UpdateStatus("rpi4", "0.1.0", "A", "0.0.9", "A", None, None, None)
WAITING = WaitingUpdate("0.2.0", "B", Boot.PENDING, "", ("kitchen",))


def test_elsewhere_than_on_a_board_it_says_so(capsys):
    for words in (["a.raucb"], ["--status"], ["--reboot"], ["mark-good"], ["rollback"]):
        assert parser.main(["update", *words]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("conflux: this is no board image")
        assert err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--status", "--reboot"], ["a.raucb", "--status"], ["mark-good", "a.raucb"]])
def test_words_that_do_not_go_together_are_wrong_usage(capsys, words):
    assert parser.main(["update", *words]) == EXIT_USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_another_user_than_root_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(running, "running", lambda: Running(Image("a", "1", "conflux-a", "1"), "A", "boot"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert parser.main(["update", "--status"]) == 1
    assert "updates are root's" in capsys.readouterr().err


def test_what_starts_next_and_what_it_is_judged_by_is_said():
    done = Updated("0.2.0", "B", "0.1.0", ("kitchen", "attic"), False)
    assert describe_updated(done) == (
        "0.2.0 is in slot B: it starts at the next boot: conflux update --reboot\n"
        "it is kept if one of these answers again: kitchen, attic"
    )
    assert describe_updated(done._replace(restarting=True, peers=())) == (
        "0.2.0 is in slot B: the board restarts into it now\nno node answered: it is judged by its units alone"
    )


def test_after_a_rollback_the_command_that_restarts_into_it_is_said():
    done = Updated("0.1.0", "A", "0.2.0", (), False)
    again = "conflux update rollback --reboot"
    assert describe_rollback(done, "B") == f"0.1.0 is in slot A: it starts at the next boot: {again}"
    assert describe_rollback(done._replace(restarting=True), "B").endswith("restarts into it now")
    assert describe_rollback(done, "A").startswith("the update was taken back: 0.1.0 in slot A runs on")


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (None, "none waits"),
        (WAITING, "0.2.0 in slot B waits for a restart: conflux update --reboot"),
        (WAITING._replace(stage=Boot.TRIAL, waits_for="an answer of kitchen"), "it waits for an answer of kitchen"),
        (WAITING._replace(stage=Boot.FELL_BACK), "did not start"),
    ],
)
def test_each_stage_is_said(waiting, said):
    assert said in describe_status(STATUS._replace(update=waiting), columns=200)


def test_the_verdict_about_the_last_update_is_said():
    judged = JudgedUpdate("0.2.0", "B", False, "failed: a.service", 1796000000)
    assert "not taken: failed: a.service" in describe_status(STATUS._replace(last=judged), columns=200)
    assert ": good" in describe_status(STATUS._replace(last=judged._replace(good=True, why="")), columns=200)


@pytest.mark.parametrize(
    "status",
    [STATUS, STATUS._replace(update=WAITING, last=JudgedUpdate("0.2.0", "B", True, "", 1), other_version="0.0.9")],
)
def test_json_of_the_status_is_of_the_scheme(capsys, status):
    print_json(status)
    assert misfits(json.loads(capsys.readouterr().out), "update") == []


def test_a_line_that_changes_is_for_terminals_alone(capsys):
    with update.Progress() as progress:
        progress.tell(40, "writing")
    assert capsys.readouterr() == ("", "")


def test_units_that_failed_are_what_systemd_lists(monkeypatch):
    said = {"is-system-running": "degraded\n", "list-units": "nftables.service loaded failed failed Nft\n\n"}
    monkeypatch.setattr(running, "_systemctl", lambda *words: said[words[0]])
    assert running.units() == Units(True, ("nftables.service",))
    said["is-system-running"] = "starting\n"
    assert not running.units().settled
