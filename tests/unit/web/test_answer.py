"""What goes to a browser: one page that loads nothing else, and its data."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from kit.answers import HOSTILE, status
from kit.tree import TREE

from conflux.web import answer
from conflux.web.history import Sample
from conflux.web.request import Refused
from conflux.web.source import Seen

PAGE = answer.page()
TEXT = PAGE.body.decode()
PAGE_BYTES_MAX = 60_000  # with an hour of data it has to stay under 100 kB


def test_the_page_is_small():
    assert len(PAGE.encode(with_body=True)) < PAGE_BYTES_MAX


def test_the_page_names_no_other_resource():
    named = re.findall(r"""(?:src|href)=["']([^"']+)|(url\(|@import)|(https?://[\w.]+)""", TEXT)
    found = {name for each in named for name in each if name}
    assert found <= {"data:image/svg+xml,%3Csvg xmlns=", "http://www.w3.org"}  # its picture, and the name of SVG
    assert set(re.findall(r'fetch\("([^"]+)"', TEXT)) == {"/state.json"}


def test_the_policy_allows_the_style_and_the_script_of_the_page_alone():
    policy = dict(part.strip().split(" ", 1) for part in dict(PAGE.headers)["Content-Security-Policy"].split(";"))
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
        assert policy[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not any("unsafe" in value or "*" in value for value in policy.values())


def test_no_style_or_handler_stands_in_a_tag_where_the_policy_forbids_it():
    assert re.findall(r"<[^>]+ (?:style|on\w+)=", TEXT.partition("<script>")[0]) == []


def test_a_peers_text_never_becomes_markup():
    script = (TREE / "conflux/web/page.js").read_text()
    code = re.sub(r"/\*.*?\*/", "", script, flags=re.DOTALL)
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(|DOMParser|srcdoc", code)
        == []
    )


def test_every_answer_says_that_it_is_not_kept_not_guessed_and_not_for_other_sites():
    for each in (PAGE, answer.refusal(Refused(421, "no")), answer.state(Seen(None, None, 1.0, "x"), (), (), now=2.0)):
        head = each.encode(with_body=False).decode()
        for line in (
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Resource-Policy: same-origin",
            "Connection: close",
            f"Content-Length: {len(each.body)}",
        ):
            assert f"{line}\r\n" in head
        assert "Access-Control" not in head
        assert "Set-Cookie" not in head
        assert head.endswith("\r\n\r\n")


def test_a_refused_method_names_those_that_are_not():
    assert ("Allow", "GET, HEAD") in answer.refusal(Refused(405, "no")).headers


def test_the_data_has_what_the_page_shows_and_nothing_else_of_the_status():
    samples = (Sample(5.0, 1.0, None, 2, 3, 4), Sample(20.0, 1.5, 0.5, 0, 3, 4))
    got = json.loads(answer.state(Seen(status(), 20.0, None, ""), (), samples, now=21.0).body)
    assert got["daemon"] == {"answering": True, "silent_at": None, "reason": ""}
    assert got["history"]["at"] == [5.0, 20.0]
    assert got["history"]["sent_mbit"] == [None, 0.5]
    assert got["status"]["node"] == status()["node"]
    assert "tasks" not in got["status"]
    assert [(row["reason"], row["times"], row["kind"]) for row in got["status"]["drops"]] == [
        ("spoofed", 3, "alarming"),
        ("aged", 12, "normal"),
    ]


def test_without_an_answer_of_the_daemon_there_is_a_reason():
    got = json.loads(answer.state(Seen(None, None, 7.0, "no daemon listens"), (), (), now=9.0).body)
    assert got["status"] is None
    assert got["daemon"] == {"answering": False, "silent_at": 7.0, "reason": "no daemon listens"}


def test_a_hostile_name_stays_a_value_of_the_data():
    seen = Seen(status(realm={"name": HOSTILE}), 1.0, None, "")
    body = answer.state(seen, (), (), now=2.0).body
    assert json.loads(body)["status"]["realm"]["name"] == HOSTILE
    assert answer.state(seen, (), (), now=2.0).kind == "application/json"
