"""conflux-board-watch.service: shows how the board is, and erases the token once it is used.

It asks the daemon on its socket, as anybody in the group may; light.py decides.  It is small and single-threaded: on a
board of 512 MB it stays for years.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from conflux.api.client import ApiClient, HangsError, NotRunning
from conflux.board import wifi
from conflux.board.files import IDENTITY, Fat, System, read, write
from conflux.board.light import BLINKS, Blink, Look, Shown, Watcher, light_of
from conflux.board.places import CHAIN, Places
from conflux.board.report import UNERASED, forget, token_on, write_log
from conflux.errors import UserError, words_of
from conflux.host.notices import notices

log = logging.getLogger(__name__)

SOCKET: Final = Path("/run/conflux/conflux.sock")
OWN: Final = "watch"
LOOK_S: Final = 2.0  # until it is ready
CALM_LOOK_S: Final = 5.0
WIFI_S: Final = 15.0
LOG_S: Final = 60.0  # between two looks at the daemon's log, and between two writes of first-boot.log
ANSWER_BYTES_MAX: Final = 8192
WIFI_ANSWER_S: Final = 2.0


class Watch:
    """The program.  socket: the daemon's.  system: of the board, or of a test."""

    def __init__(self, places: Places, fat: Fat | None, socket: Path = SOCKET, system: System | None = None) -> None:
        self._places = places
        self._fat = fat
        self._client = ApiClient(socket)
        self._watcher = Watcher(now=time.monotonic())
        self._lamp = Lamp(places.leds, system)
        self._wifi_at = self._log_at = self._error_at = self._searching_at = float("-inf")
        self._wifi_notice: str | None = None
        self._last_error = ""
        self._is_tidy = False  # the token is erased, and the FAT partition says who this board is
        self._unerased: str | None = None  # what is said of a token that could not be

    def turn(self, now: float) -> Shown:
        """Look once, and show it.  now: monotonic seconds."""
        look = self._look(now)
        shown = self._watcher.see(look, now=now)
        self._lamp.show(BLINKS[shown.light])
        for line in shown.lines:
            self._say(line)
        self._note(shown.own)
        if look.status is not None and look.has_realm and not self._is_tidy:
            self._tidy(look.status)
        if now - self._log_at >= LOG_S:
            self._log_at = now
            with contextlib.suppress(OSError):
                write_log(self._places, self._fat, notices(self._places.notices))
        return shown

    def _look(self, now: float) -> Look:
        status: dict[str, Any] | None = None
        said, runs = "", True
        try:
            answer = self._client.look("status")
            status = answer if isinstance(answer, dict) else None
        except (NotRunning, HangsError) as error:
            said, runs = str(error), False
        except UserError as error:
            said = str(error)
        if not runs and now - self._error_at >= LOG_S:
            self._error_at = now
            self._last_error = last_error()
        self._look_at_wifi(now)
        has_realm = (self._places.state / CHAIN).exists()
        others = notices(self._places.notices, but=OWN)
        known = (*others, *filter(None, [self._wifi_notice, self._unerased]))
        invited = (
            "token" in (read(self._places.configuration) or b"").decode("utf-8", "replace") if not has_realm else False
        )
        return Look(status, said, runs, known, self._last_error, has_realm, invited)

    def _look_at_wifi(self, now: float) -> None:
        text = read(self._places.own / "wifi.conf")
        if text is None or now - self._wifi_at < WIFI_S:
            return
        self._wifi_at = now
        state = wifi.state_of(ask_wifi("STATUS", self._places.run), ask_wifi("LIST_NETWORKS", self._places.run))
        if state in (wifi.Wifi.UP, wifi.Wifi.REFUSED):
            self._searching_at = float("-inf")
        elif self._searching_at == float("-inf"):
            self._searching_at = now
        since_s = 0.0 if self._searching_at == float("-inf") else now - self._searching_at
        self._wifi_notice = wifi.notice(state, wifi.ssid_of(text.decode("utf-8", "replace")), since_s)

    def _say(self, line: str) -> None:
        log.info("%s", line)
        with contextlib.suppress(OSError), self._places.console.open("a") as console:
            console.write(f"{line}\r\n")

    def _note(self, own: tuple[str, ...]) -> None:
        lines = (*own, *filter(None, [self._wifi_notice, self._unerased]))
        with contextlib.suppress(OSError):
            write(self._places.notices / OWN, "".join(f"{line}\n" for line in lines).encode())

    def _tidy(self, status: Mapping[str, Any]) -> None:
        """Erase the token, if it is the one that was used, and write on the card who this board is."""
        from conflux.board.settle import SETTINGS, decode_untrusted, digest

        try:
            handed = decode_untrusted(read(self._places.own / SETTINGS) or b"").token
            token = token_on(self._fat)
            mine = (
                token if token is not None and digest(token) == handed else None
            )  # another is left: first boot says so
            left = forget(self._places, self._fat, mine)
            self._unerased = None if left is None else UNERASED
            if self._fat is not None:
                node, realm = status["node"], status["realm"]
                text = (
                    "# Written by this board, so that a damaged card is not taken for a new one.\n"
                    f"node = {node['id']}\nname = {node['name']}\nrealm = {realm['name']}\n"
                )
                if left is not None:  # so that it is never taken for a new one
                    text += f"used = {digest(left)}\n"
                self._fat.write(IDENTITY, text.encode())
            self._is_tidy = True
        except OSError as error:
            log.warning("the card's first partition: %s", words_of(error))


class Lamp:
    """A board's light; none on a board without one.  The kernel blinks: it goes on when this program ends."""

    def __init__(self, leds: Path, system: System | None = None) -> None:
        triggers = {}
        if leds.is_dir() and any(leds.iterdir()):
            with contextlib.suppress(OSError):  # a kernel may have it built in
                (system or System()).run(["modprobe", "-q", "ledtrig-timer"])
        with contextlib.suppress(OSError):
            for light in leds.iterdir():
                triggers[light.name] = (read(light / "trigger") or b"").decode("ascii", "replace")
        name = light_of(triggers)
        self._path = None if name is None else leds / name
        self._shown: Blink | None = None

    def show(self, blink: Blink) -> None:
        """Have the light blink so."""
        if self._path is None or blink == self._shown:
            return
        try:
            if blink.off_ms:
                (self._path / "trigger").write_text("timer")
                (self._path / "delay_on").write_text(str(blink.on_ms))
                (self._path / "delay_off").write_text(str(blink.off_ms))
            else:
                (self._path / "trigger").write_text("none")
                (self._path / "brightness").write_text((self._path / "max_brightness").read_text().strip() or "1")
            self._shown = blink
        except OSError as error:
            log.warning("%s: %s", self._path, words_of(error))
            self._path = None


def ask_wifi(command: str, run_dir: Path, device: Path = Path(wifi.CONTROL) / "wlan0") -> str | None:
    """Return the answer of wpa_supplicant to a command; None: there is none."""
    own = run_dir / f".wpa-{os.getpid()}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asker:
        own.unlink(missing_ok=True)
        asker.bind(str(own))
        try:
            asker.settimeout(WIFI_ANSWER_S)
            asker.connect(str(device))
            asker.send(command.encode())
            return asker.recv(ANSWER_BYTES_MAX).decode("utf-8", "replace")
        finally:
            own.unlink(missing_ok=True)
    return None


def last_error() -> str:
    """Return the last line that the daemon wrote before it ended; "" if that cannot be read."""
    try:
        done = System().run(["journalctl", "-q", "--no-pager", "-o", "cat", "-t", "conflux", "-n", "1"], within_s=10)
    except OSError:
        return ""
    return done.stdout.strip()[-300:]


def main() -> int:
    """Watch until SIGTERM."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    places = Places()
    watch = Watch(places, Fat(places.fat) if places.fat.is_mount() else None)
    while True:
        shown = watch.turn(time.monotonic())
        time.sleep(CALM_LOOK_S if shown.is_ready else LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
