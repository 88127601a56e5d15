"""The report of the bench, as the page hands it out."""

from __future__ import annotations

import base64
import hashlib

import pytest

from conflux.web.measured import BYTES_MAX, REPORT, measured, measured_at
from conflux.web.request import Refused


def test_a_board_that_was_measured_has_a_report_that_runs_no_script(tmp_path):
    text = "<!doctype html><style>body { color: red }</style><p>12 Gbit/s<script>alert(1)</script>"
    (tmp_path / REPORT).write_text(text)
    answer = measured(tmp_path)
    assert (answer.status, answer.kind, answer.body) == (200, "text/html; charset=utf-8", text.encode())
    policy = dict(answer.headers)["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(b"body { color: red }").digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "script" not in policy
    assert "sandbox" in policy
    assert (measured_at(tmp_path) or 0) > 1_500_000_000


def test_a_board_that_was_not_measured_says_how(tmp_path):
    assert measured_at(tmp_path) is None
    with pytest.raises(Refused, match="`conflux board bench` does it"):
        measured(tmp_path)
    (tmp_path / REPORT).mkdir()
    with pytest.raises(Refused):
        measured(tmp_path)


def test_what_is_too_large_is_no_report(tmp_path):
    (tmp_path / REPORT).write_bytes(bytes(BYTES_MAX + 1))
    with pytest.raises(Refused, match="too large"):
        measured(tmp_path)


def test_a_report_without_styles_gets_none(tmp_path):
    (tmp_path / REPORT).write_bytes(b"x")
    assert "style-src 'none'" in dict(measured(tmp_path).headers)["Content-Security-Policy"]
