"""A bundle by HTTP, from servers that do what they like."""

from __future__ import annotations

import contextlib
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conflux.board import fetch
from conflux.errors import UserError

CONTENT = bytes(range(256)) * 5000

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers each request as it is told."""

    answer: Answer
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/a.raucb"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.answer(self)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def send(code: int = 200, content: bytes = CONTENT, *, length: int | None = None, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        if length != -1:
            handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def refusal(server: Server, place: Path) -> str:
    with pytest.raises(UserError) as refused:
        fetch.fetch(server.url, place, lambda percent, words: None)
    assert list(place.parent.iterdir()) == [], "nothing is left behind"
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_there_is_written_whole_and_progress_is_told(server, tmp_path):
    server.answer = send()
    told = []
    fetch.fetch(server.url, tmp_path / "a", lambda percent, words: told.append((percent, words)))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert told[-1] == (100, "fetching")


def test_a_server_that_does_not_say_the_length_is_read_to_its_end(server, tmp_path):
    server.answer = send(length=-1)
    fetch.fetch(server.url, tmp_path / "a", lambda percent, words: None)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_redirect_is_followed(server, tmp_path):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (send() if handler.path == "/b" else send(302, b"", Location="/b"))(handler)

    server.answer = answer
    fetch.fetch(server.url, tmp_path / "a", lambda percent, words: None)
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/a"])
def test_a_redirect_to_elsewhere_is_not(server, tmp_path, target):
    server.answer = send(302, b"", Location=target)
    assert "not followed" in refusal(server, tmp_path / "a")


def test_a_redirect_for_ever_ends(server, tmp_path):
    server.answer = send(302, b"", Location="/a.raucb")
    assert refusal(server, tmp_path / "a")


def test_nothing_of_the_body_of_a_redirect_is_read(server, tmp_path):
    came: list[int] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/b":
            send()(handler)
            return
        handler.send_response(302)
        handler.send_header("Location", "/b")
        handler.end_headers()
        with contextlib.suppress(OSError):
            # more than the kernels of both ends keep, if nobody reads it
            came.extend(handler.wfile.write(bytes(1 << 16)) for _ in range(2000))

    server.answer = answer
    fetch.fetch(server.url, tmp_path / "a", lambda percent, words: None)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(came) < 2000, "it was read to its end"


@pytest.mark.parametrize("code", [403, 404, 500, 503])
def test_an_error_of_the_server_is_said(server, tmp_path, code):
    server.answer = send(code, b"no")
    assert f"the server says {code}" in refusal(server, tmp_path / "a")


def test_a_connection_that_breaks_off_is_said(server, tmp_path):
    server.answer = send(length=len(CONTENT) + 1)
    assert f"broke off after {len(CONTENT)} of {len(CONTENT) + 1} bytes" in refusal(server, tmp_path / "a")


def test_more_than_a_bundle_can_have_is_not_even_begun(server, tmp_path):
    server.answer = send(content=b"x" * 100, length=fetch.BUNDLE_BYTES_MAX + 1)
    said = refusal(server, tmp_path / "a")
    assert "larger than any bundle" in said or "no room" in said


def test_a_server_without_an_end_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "BUNDLE_BYTES_MAX", 100_000)
    server.answer = send(length=-1)
    assert "larger than any bundle" in refusal(server, tmp_path / "a")


def test_no_server_is_said(tmp_path):
    with pytest.raises(UserError, match="Connection refused"):
        fetch.fetch("http://127.0.0.1:9/a.raucb", tmp_path / "a", lambda percent, words: None)


def test_addresses_are_told_from_files():
    assert all(map(fetch.is_url, ("http://a/b", "HTTPS://a/b")))
    assert not any(map(fetch.is_url, ("a.raucb", "/a/b", "ftp://a/b", "http:/a", "https")))


def test_a_redirect_from_https_to_http_is_not_followed():
    request = urllib.request.Request("https://127.0.0.1/a.raucb")
    for target, followed in (("http://127.0.0.1/a", False), ("https://127.0.0.1/b", True)):
        handler = fetch._Redirects()
        try:
            found = handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), target)
        except urllib.error.URLError:
            found = None
        assert (found is not None) == followed
