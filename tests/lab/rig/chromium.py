"""A headless Chromium with one page open, and the server on localhost through which a test talks to the page.

test: describe(), tell() ─► queue ─► GET /next ─► page          the page's RTCPeerConnection is the peer
      description, said  ◄─────────  POST /...  ◄─ page
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("chromium_peer.html")
# Only the page: no update, no sync, no first-run dialog.  Host candidates have their addresses, as for a page that may
# use the camera; a name under .local would need a resolver on this side.
FLAGS = (
    "--headless",
    "--no-sandbox",  # the lab's machine is a namespace, in which it cannot make its own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)


class Page:
    """One page in one browser."""

    def __init__(self, process: asyncio.subprocess.Process, server: _Server) -> None:
        self._process = process
        self._server = server

    def tell(self, what: dict[str, Any]) -> None:
        """Give the page its next instruction, or our description."""
        self._server.to_page.put_nowait(json.dumps(what).encode())

    async def heard(self, path: str) -> Any:
        """Wait for what the page posts to path.  Fails with the page's own error if it failed."""
        while True:
            came, body = await self._server.from_page.get()
            assert came != "/failed", body
            if came == path:
                return json.loads(body)

    def kill(self) -> None:
        """Kill the browser with all its processes, without a goodbye."""
        os.killpg(self._process.pid, signal.SIGKILL)


class _Server:
    """As much HTTP as fetch() needs."""

    def __init__(self) -> None:
        self.to_page: asyncio.Queue[bytes] = asyncio.Queue()
        self.from_page: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split("\r\n", 1)[0].split(" ")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            if method == "POST":
                self.from_page.put_nowait((path, body.decode()))
                answer, kind = b"", "text/plain"
            elif path == "/next":
                answer, kind = await self.to_page.get(), "application/json"
            else:
                answer, kind = (PAGE.read_bytes() if path.startswith("/?") else b""), "text/html"
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + answer
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def page_in_role(role: str) -> AsyncIterator[Page]:
    """Open the page as "offer" or "answer"."""
    state = _Server()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            "chromium",
            *FLAGS,
            f"--user-data-dir={home}/profile",
            f"http://127.0.0.1:{port}/?role={role}",
            env={**os.environ, "HOME": home},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        page = Page(process, state)
        try:
            yield page
        finally:
            if process.returncode is None:
                page.kill()
                await process.wait()
            # No wait_closed(): from Python 3.12 on it waits for every connection, and one of the page's waits for us.
            server.close()
