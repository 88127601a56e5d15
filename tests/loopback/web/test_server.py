"""The page's server on loopback: what readers get, and what many, slow and hostile ones cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

import pytest
from kit.answers import status

from conflux.errors import UserError
from conflux.web import measured
from conflux.web import server as server_module
from conflux.web.health import Health
from conflux.web.request import HEAD_BYTES_MAX
from conflux.web.server import READER_COUNT_MAX, PageServer
from conflux.web.source import Source

PATIENCE_S = 10.0
FINDING = {"check": "clock", "grade": "bad", "text": "the clock is wrong", "remedy": "set it", "more": 1}
DOCTOR = [sys.executable, "-c", f"print({json.dumps({'findings': [FINDING]})!r})"]


class Daemon:
    """A daemon that counts questions, and may be gone or hang."""

    def __init__(self) -> None:
        self.questions: list[float] = []
        self.gone = False
        self.hangs_s = 0.0

    def ask(self) -> object:
        self.questions.append(time.monotonic())
        time.sleep(self.hangs_s)
        if self.gone:
            raise UserError("no daemon listens")
        return status()


class Site:
    """A page that is served, and its daemon."""

    def __init__(self, server: PageServer, daemon: Daemon, port: int) -> None:
        self.server, self.daemon, self.port = server, daemon, port

    async def send(self, data: bytes, address: str = "127.0.0.1") -> bytes:
        """Return all that comes for data until the server closes."""
        reader, writer = await asyncio.open_connection(address, self.port)
        writer.write(data)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, host: str = "localhost", method: str = "GET") -> tuple[int, bytes, bytes]:
        """Return the status, the head and the body of an answer."""
        got = await self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = got.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    daemon = Daemon()
    server = PageServer(Source(daemon.ask), Health(DOCTOR))
    server.names = {"localhost", "attic"}
    port = server.listen(ip_address("127.0.0.1"), 0)
    try:
        yield Site(server, daemon, port)
    finally:
        await server.stop()


async def until(fact) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not fact():  # noqa: ASYNC110  # the server is to be watched, not helped
            await asyncio.sleep(0.01)


async def test_the_page_its_data_and_the_metrics_are_served():
    async with site() as it:
        code, head, body = await it.get("/")
        assert (code, body.startswith(b"<!doctype html>")) == (200, True)
        assert b"Content-Security-Policy: default-src 'none'" in head
        code, head, body = await it.get("/state.json")
        assert json.loads(body)["status"]["node"]["name"] == "attic"
        code, head, body = await it.get("/metrics")
        assert b"text/plain; version=0.0.4" in head
        assert b"conflux_up 1.0" in body


async def test_head_is_the_same_without_the_body():
    async with site() as it:
        _, head, _ = await it.get("/")
        code, bare, body = await it.get("/", method="HEAD")
        assert (code, bare, body) == (200, head, b"")


async def test_the_report_of_the_bench_is_served_and_linked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "measured", partial(measured.measured, tmp_path))
    monkeypatch.setattr(server_module, "measured_at", partial(measured.measured_at, tmp_path))
    async with site() as it:
        assert json.loads((await it.get("/state.json"))[2])["bench_at"] is None
        code, _, body = await it.get("/bench")
        assert (code, b"conflux board bench" in body) == (404, True)
        (tmp_path / measured.REPORT).write_text("<p>1.84 Gbit/s")
        assert json.loads((await it.get("/state.json"))[2])["bench_at"] > 0
        code, head, body = await it.get("/bench")
        assert (code, body) == (200, b"<p>1.84 Gbit/s")
        assert b"sandbox" in head


@pytest.mark.parametrize(("path", "code"), [("/nothing", 404), ("/../etc/passwd", 404), ("//evil.example/", 404)])
async def test_there_is_nothing_else(path, code):
    async with site() as it:
        assert (await it.get(path))[0] == code


@pytest.mark.parametrize("path", ["/", "/state.json", "/metrics"])
async def test_a_foreign_host_gets_nothing_of_the_board_and_asks_the_daemon_nothing(path):
    async with site() as it:
        code, _, body = await it.get(path, host="rebound.evil.example")
        assert code == 421
        assert b"page.names" in body
        assert it.daemon.questions == []


async def test_the_address_of_the_connection_is_a_host_of_ours():
    async with site() as it:
        assert (await it.get("/", host=f"127.0.0.1:{it.port}"))[0] == 200
        assert (await it.get("/", host="127.0.0.2"))[0] == 421


async def test_a_post_is_refused_and_its_sender_reads_why():
    async with site() as it:
        got = await it.send(b"POST / HTTP/1.1\r\nHost: attic\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000)
        assert got.startswith(b"HTTP/1.1 405 ")
        assert b"Allow: GET, HEAD" in got


async def test_a_head_without_end_is_refused_at_its_bound():
    async with site() as it:
        assert (await it.send(b"GET / HTTP/1.1\r\nHost: attic\r\nX: " + b"x" * 2 * HEAD_BYTES_MAX)).startswith(
            b"HTTP/1.1 431 "
        )


async def test_rubbish_is_answered_with_an_error_and_harms_nothing():
    async with site() as it:
        for data in (
            b"\x16\x03\x01\x00\xa5\r\n\r\n",
            b"\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            assert (await it.send(data)).startswith(b"HTTP/1.1 400 ")
        assert (await it.get("/"))[0] == 200


async def test_a_hundred_readers_cost_the_daemon_one_question_a_second():
    async with site() as it:
        began = time.monotonic()
        for _ in range(10):
            answers = await asyncio.gather(*(it.get("/state.json") for _ in range(10)))
            assert {code for code, _, _ in answers} == {200}
        assert len(it.daemon.questions) <= time.monotonic() - began + 1


async def test_a_daemon_that_is_gone_is_said_with_what_was_last_known():
    async with site() as it:
        await it.get("/state.json")
        it.daemon.gone = True
        await until(lambda: time.monotonic() - it.daemon.questions[0] > 1)
        got = json.loads((await it.get("/state.json"))[2])
        assert got["status"]["node"]["name"] == "attic"
        assert got["daemon"]["answering"] is False
        assert got["daemon"]["reason"] == "no daemon listens"
        assert got["daemon"]["silent_at"] == pytest.approx(time.time(), abs=5)
        it.daemon.gone = False
        await until(lambda: time.monotonic() - it.daemon.questions[-1] > 1)
        assert json.loads((await it.get("/state.json"))[2])["daemon"]["answering"] is True


async def test_a_daemon_that_hangs_keeps_no_reader_waiting():
    async with site() as it:
        it.daemon.hangs_s = 3.0
        began = time.monotonic()
        answers = await asyncio.gather(*(it.get("/state.json") for _ in range(5)))
        assert time.monotonic() - began < 2.5
        assert {json.loads(body)["status"] for _, _, body in answers} == {None}
        assert len(it.daemon.questions) == 1


async def test_readers_see_what_the_doctor_found_and_wait_for_no_look():
    async with site() as it:
        assert json.loads((await it.get("/state.json"))[2])["findings"] == []
        async with asyncio.timeout(PATIENCE_S):
            while not (found := json.loads((await it.get("/state.json"))[2])["findings"]):
                pass
        assert found == [{name: FINDING[name] for name in ("check", "grade", "text", "remedy")}]


@pytest.mark.parametrize("command", [["/nothing/there"], [sys.executable, "-c", "print('[1')"], ["sh", "-c", "exit 1"]])
async def test_a_doctor_that_cannot_look_finds_nothing(command):
    health = Health(command)
    assert health.findings() == ()
    await until(lambda: health._looking is None)
    assert health.findings() == ()


async def test_a_look_that_hangs_ends_with_the_server(tmp_path):
    begun = tmp_path / "begun"
    health = Health(["sh", "-c", f"touch {begun}; exec sleep 1000"])
    health.findings()
    await until(begun.exists)
    began = time.monotonic()
    await health.stop()
    assert time.monotonic() - began < PATIENCE_S


async def test_a_reader_that_sends_no_request_loses_its_place(monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.2)
    async with site() as it:
        with pytest.raises(ConnectionResetError):
            await it.send(b"GET / HT")
        assert it.server.drops["slow"] == 1


async def test_a_reader_that_trickles_its_request_has_no_more_time_for_that(monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.3)
    async with site() as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        with contextlib.suppress(ConnectionError):
            while not it.server.drops["slow"]:
                writer.write(b"G")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()


async def test_a_reader_that_does_not_read_is_dropped_and_keeps_nothing(monkeypatch):
    monkeypatch.setattr(server_module, "TAKEN_WITHIN_S", 0.3)
    async with site() as it:
        slow = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(5)]
        for each in slow:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            each.sendall(b"GET / HTTP/1.1\r\nHost: attic\r\n\r\n")
        await until(lambda: it.server.drops["slow"] == 5)
        assert (await it.get("/"))[0] == 200
        for each in slow:
            each.close()


async def test_one_address_has_a_share_of_the_places_and_the_others_are_served():
    async with site() as it:
        port = it.server.listen(ip_address("::1"), 0)
        idle = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(READER_COUNT_MAX + 5)]
        await until(lambda: it.server.drops["crowd"] == 5)
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        for each in idle:
            each.close()
        await until(lambda: it.server.connection_count == 0)
        assert (await it.get("/"))[0] == 200


async def test_a_place_that_is_left_is_served_no_more():
    async with site() as it:
        await it.server.leave(ip_address("127.0.0.1"))
        with pytest.raises(ConnectionRefusedError):
            await it.get("/")
