"""`conflux why` and the last line of a failed ping: the sentences, for what the daemon may answer."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from conflux.cli import context, why
from conflux.cli.why import describe_reason, paragraph

NOW = 1_800_000_000.0
NO_RELAY = {"step": "hop", "reason": "no-relay", "said": "no-relay", "who": "shed"}
SILENT = {"step": "dial", "reason": "no-answer", "said": "timeout", "who": "attic"}


def answer(**facts: Any) -> dict[str, Any]:
    return {
        "asked": "attic",
        "name": "attic",
        "node": "a" * 26,
        "verdict": "idle",
        "sources": [{"by": "card", "channel": None, "address": None, "via": None, "at": None}],
        "heard_at": None,
        "left_at": None,
        "restarted_at": None,
        "expires_at": NOW + 86400 * 20,
        "revoked_at": None,
        "because": None,
        "path": None,
        "rtt_ms": None,
        "trying": [],
        "handshake": None,
        "tried": [],
        "next": {"kind": "packet", "at": None},
        "neighbours": 1,
        "broker": False,
        "realm_at": NOW,
    } | facts


def source(by: str, **facts: Any) -> dict[str, Any]:
    return {"by": by, "channel": None, "address": None, "via": None, "at": None} | facts


def tried(*path: str, outcome: str = "failed", failure: object = None, ago_s: float = 3.0) -> dict[str, Any]:
    waited_s = 10.4 if outcome == "unanswered" else None
    row = {"path": list(path), "outcome": outcome, "at": NOW - ago_s, "failure": failure}
    return row | {"waited_s": waited_s, "again_at": None}


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            {"verdict": "unknown", "name": None, "node": None, "asked": "atic"},
            "no node of this realm answers to 'atic'",
        ),
        (
            {"verdict": "unknown", "name": None, "node": None, "asked": "atic", "neighbours": 0},
            "no node of this realm answers to 'atic'; this node has no neighbour and no broker",
        ),
        (
            {"verdict": "expired", "expires_at": NOW - 2 * 86400 - 5},
            "attic: its credential ended 2 d 0 h ago",
        ),
        ({"verdict": "revoked", "revoked_at": NOW - 60, "because": "stolen"}, "attic was revoked (stolen) 1 min ago"),
        ({"verdict": "revoked", "revoked_at": NOW - 60, "because": "revoked"}, "attic was revoked 1 min ago"),
        (
            {"verdict": "own-expired", "expires_at": NOW - 60},
            "this node's own credential ended 1 min ago, so no other node answers it",
        ),
        ({"verdict": "own-revoked"}, "this node was revoked, so no other node answers it"),
        ({"verdict": "retrying", "left_at": NOW - 20}, "attic left the LAN 20 s ago"),
        (
            {
                "verdict": "retrying",
                "left_at": NOW - 20,
                "tried": [tried("attic", failure=SILENT), tried("shed", "attic", failure=NO_RELAY)],
            },
            "attic left the LAN 20 s ago; shed does not relay (no-relay)",
        ),
        (
            {
                "verdict": "given-up",
                "tried": [tried("attic", failure=SILENT), tried("shed", "attic", failure=NO_RELAY)],
            },
            "attic: shed does not relay (no-relay); direct: attic does not answer (dial: timeout)",
        ),
        (
            {"verdict": "given-up", "tried": [tried("shed", "barn", "attic", failure=NO_RELAY)]},
            "attic: by shed, barn: shed does not relay (no-relay)",
        ),
        (
            {
                "verdict": "retrying",
                "handshake": {"step": "handshake", "reason": "refused", "said": "busy", "who": "attic"},
            },
            'attic: attic does not take the stream, saying "busy" (handshake: refused: busy)',
        ),
        (
            {
                "verdict": "idle",
                "tried": [tried("attic", outcome="unanswered"), tried("shed", "attic", failure=NO_RELAY)],
            },
            "attic: shed does not relay (no-relay); direct: no answer for 10 s",
        ),
        ({"verdict": "opening", "tried": [tried("attic", outcome="trying")]}, "attic: direct: no answer yet"),
        ({"verdict": "silent", "path": ["shed", "attic"]}, "attic: packets go by shed, and nothing comes back"),
        (
            {"verdict": "flowing", "path": ["attic"]},
            "attic: packets go direct and arrive; a firewall on conflux0 there may drop them",
        ),
        ({"verdict": "idle"}, "attic: no path to it is known"),
    ],
)
def test_the_last_line_of_a_failure_is_the_reason_that_the_daemon_knows(facts: dict[str, Any], line: str) -> None:
    assert describe_reason(answer(**facts), NOW) == line


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            {
                "verdict": "flowing",
                "sources": [source("lan", channel="lan", address="10.7.1.11", at=NOW - 300)],
                "path": ["attic"],
                "rtt_ms": 0.62,
                "tried": [tried("attic", outcome="carried", ago_s=9), tried("shed", "attic", outcome="left", ago_s=8)],
                "next": None,
            },
            "attic is a neighbour on the LAN at 10.7.1.11, for 5 min. Packets flow direct, 0.62 ms there and back."
            " By shed was tried 8 s ago and not needed.",
        ),
        (
            {
                "verdict": "flowing",
                "sources": [source("behind", via="shed", at=NOW - 4)],
                "path": ["shed", "attic"],
                "tried": [
                    tried("shed", "attic", outcome="carried"),
                    tried("attic", failure=SILENT | {"reason": "timeout", "said": ""}, ago_s=20),
                ],
                "next": {"kind": "direct", "at": NOW + 40},
            },
            "attic is behind shed, which brought its last message 4 s ago. Packets flow by shed. Direct failed 20 s"
            " ago: no link to attic comes up, so UDP may not pass between the two (dial: timeout). The direct path is"
            " tried again in 40 s.",
        ),
        (
            {
                "verdict": "retrying",
                "sources": [source("card", at=NOW - 30)],
                "left_at": NOW - 25,
                "tried": [tried("attic", failure=SILENT)],
                "next": {"kind": "retry", "at": NOW + 1.5},
            },
            "attic is known by its card, heard 30 s ago. It left the LAN 25 s ago. No way was found, and packets wait"
            " for the next try. Direct failed 3 s ago: attic does not answer (dial: timeout). The next try is in 1 s.",
        ),
        (
            {"tried": [tried("attic", outcome="unanswered", ago_s=22)]},
            "attic is known by its card. Nothing is sent there, so nothing is open. Direct had no answer for 10 s,"
            " until 22 s ago. The next packet opens a way.",
        ),
        (
            {"sources": [source("broker", channel="nats", at=NOW)], "restarted_at": NOW - 61},
            "attic is known over the broker, heard just now. It restarted 1 min ago. Nothing is sent there, so nothing"
            " is open. The next packet opens a way.",
        ),
        (
            {"verdict": "given-up", "next": {"kind": "packet", "at": NOW + 12}},
            "attic is known by its card. No way was found, and packets are refused for now. Packets are taken again in"
            " 12 s.",
        ),
        (
            {"verdict": "opening", "trying": [["attic"], ["shed", "attic"]], "next": {"kind": "path", "at": NOW}},
            "attic is known by its card. A way is being opened: direct and by shed. Another path is tried beside it at"
            " once.",
        ),
        (
            {"verdict": "unknown", "name": None, "node": None, "asked": "atic"},
            "No node of this realm answers to 'atic'. Is it running, and is the name right?",
        ),
        ({"verdict": "expired", "expires_at": NOW - 3600}, "attic: its credential ended 1 h 0 min ago."),
    ],
)
def test_the_paragraph_says_whence_what_now_what_was_tried_and_what_comes_next(
    facts: dict[str, Any], text: str
) -> None:
    assert paragraph(answer(**facts), NOW) == text


@pytest.mark.parametrize("verdict", ["flowing", "silent", "opening", "retrying", "given-up", "idle"])
def test_a_member_is_explained_with_exit_code_0(verdict, monkeypatch, capsys) -> None:
    got = answer(verdict=verdict, path=["attic"])
    asked = []
    monkeypatch.setattr(
        context, "daemon", lambda options: Namespace(call=lambda do, **words: (asked.append((do, words)), got)[1])
    )
    assert why.why(Namespace(name="Attic", flow=None, json=False)) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("attic is known by its card.")
    assert why.why(Namespace(name="Attic", flow=None, json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {"scheme": 1, **got}
    assert asked == [("why", {"name": "Attic"})] * 2


@pytest.mark.parametrize("verdict", ["unknown", "expired", "revoked", "own-expired", "own-revoked"])
def test_what_is_no_member_is_explained_with_exit_code_1(verdict, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        context,
        "daemon",
        lambda options: Namespace(call=lambda do, **words: answer(verdict=verdict, expires_at=NOW, revoked_at=NOW)),
    )
    assert why.why(Namespace(name="attic", flow=None, json=False)) == 1
    assert capsys.readouterr().out.endswith((".\n", "?\n"))
