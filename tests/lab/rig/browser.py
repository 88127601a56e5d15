"""A headless Chromium on a lab's host, driven by its DevTools protocol over two pipes: pages opened, read and pictured.

this process ── fd 3: commands ──► chromium      JSON, each message ended by a zero byte
             ◄─ fd 4: answers, events ──
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig.chromium import FLAGS

PATIENCE_S = 60.0  # a browser takes its time to start on a busy machine


class BrowserError(AssertionError):
    """The browser did not do what it was told."""


class Tab:
    """One tab.  complaints: what its console said, exceptions, and what its policy forbade."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.complaints: list[str] = []
        self._to, self._from = to_browser, from_browser
        self._read = b""
        self._number = 0
        self._session = ""
        self._events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Take the tab that the browser began with, or a new one."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self._call(f"{domain}.enable")

    def emulate(self, width: int, height: int, *, dark: bool) -> None:
        """Be a screen of this size, in CSS pixels, in a system that is light or dark."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self._events.clear()
        self.complaints.clear()
        said = self._call("Page.navigate", url=url)
        if "errorText" in said:
            raise BrowserError(f"{url}: {said['errorText']}")
        self._until(lambda: any(each["method"] == "Page.loadEventFired" for each in self._events), f"{url} loaded")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; of a promise, what it becomes."""
        got = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise BrowserError(f"{expression}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def wait_until(self, expression: str, *, within_s: float = 20.0) -> None:
        """Wait until an expression in the page is true."""
        deadline = time.monotonic() + within_s
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {within_s:g} s: {expression}")
            self._pump(0.1)

    def transferred_bytes(self) -> int:
        """Return the bytes that came since the page was opened, heads included."""
        done = (each for each in self._events if each["method"] == "Network.loadingFinished")
        return int(sum(each["params"]["encodedDataLength"] for each in done))

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for since it was opened."""
        asked = (each for each in self._events if each["method"] == "Network.requestWillBeSent")
        return [each["params"]["request"]["url"] for each in asked]

    def picture(self, kind: str = "png", *, height: int | None = None) -> bytes:
        """Return a picture of the page, all of it or its first lines.  height: in CSS pixels."""
        box = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": box["width"], "height": height or box["height"], "scale": 1}
        options = {} if kind == "png" else {"quality": 82}
        got = self._call("Page.captureScreenshot", format=kind, clip=clip, captureBeyondViewport=True, **options)
        return base64.b64decode(got["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []

        def note(each: dict[str, Any]) -> None:
            if each.get("id") == number:
                answers.append(each)

        self._until(lambda: bool(answers), method, note)
        if "error" in answers[0]:
            raise BrowserError(f"{method}: {answers[0]['error']['message']}")
        result: dict[str, Any] = answers[0]["result"]
        return result

    def _until(self, fact: Any, what: str, note: Any = lambda message: None) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not fact():
            if time.monotonic() > deadline:
                raise BrowserError(f"the browser: not within {PATIENCE_S:g} s: {what}")
            self._pump(1.0, note)

    def _pump(self, within_s: float, note: Any = lambda message: None) -> None:
        """Take what the browser says."""
        if not select.select([self._from], [], [], within_s)[0]:
            return
        data = os.read(self._from, 1 << 20)
        if not data:
            raise BrowserError("the browser has ended")
        *whole, self._read = (self._read + data).split(b"\0")
        for message in map(json.loads, whole):
            note(message)
            if "method" in message:
                self._events.append(message)
                self._complain(message["method"], message["params"])

    def _complain(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:400])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(parameters["args"])[:400])


@contextmanager
def browser(enter: Sequence[str] = ()) -> Iterator[Tab]:
    """Start a browser and yield a tab of it.  enter: the words that run a program on a host."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # The protocol's descriptors are 3 and 4, whatever numbers ours have.
        script = f'exec "$@" 3<&{command_read} 4>&{answer_write}'
        flags = [
            "--remote-debugging-pipe",
            f"--user-data-dir={Path(home, 'profile')}",
            "--hide-scrollbars",
            "about:blank",
        ]
        process = subprocess.Popen(
            [*enter, "bash", "-c", script, "bash", "chromium", *FLAGS, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(command_read, answer_write),
            env={**os.environ, "HOME": home},
            start_new_session=True,
        )
        os.close(command_read)
        os.close(answer_write)
        tab = Tab(command_write, answer_read)
        try:
            tab.attach()
            yield tab
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(command_write)
            os.close(answer_read)
