"""conflux-board.service: at every boot, before all else, makes the board what its card says.

    FAT partition ─► data partition ─► what both slots share ─► card ─► name, keys, Wi-Fi, configuration ─► report

Each step makes something be so, whole or not at all, and finds it done if it is: so it does not matter at which of them
the power failed the last time, and first boot is the boot that finds nothing done.  A step that fails is reported, and
the others go on: a board always comes up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from conflux.board import daemon_file, data, imager, renew, rescue, settle, wifi
from conflux.board.card import NAME, Card, read_untrusted
from conflux.board.files import IDENTITY, LOG, Fat, System, read, remove, write
from conflux.board.partition import DataPartition
from conflux.board.places import CHAIN, DATA_LABEL, FAT_LABEL, Places, Shared, shared_of
from conflux.board.report import UNERASED, forget, write_log
from conflux.board.settle import Kept, name_for, settled, token_of
from conflux.errors import printable, words_of

log = logging.getLogger(__name__)

MACHINE_ID: Final = "machine-id"
HOST_KEY: Final = "ssh_host_ed25519_key"
DEVICE_S: Final = 30.0  # a disk on USB is slow in coming
DEVICE_POLL_S: Final = 0.2
OVERLAY: Final = "conflux0"
_NFT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")  # one with a quote would make nft refuse the whole firewall
PORTS: Final = (7464, 7480)  # that /etc/nftables.conf lets in without a word


class FirstBoot:
    """One boot's work.  places, system: of the board, or of a test."""

    def __init__(self, places: Places, system: System | None = None) -> None:
        self._places = places
        self._system = system or System()
        self.fat: Fat | None = None
        self.notices: list[str] = []
        self.lines: list[str] = []  # of the report

    def run(self) -> None:
        """Do all of it.  Raises nothing that a damaged card could cause."""
        places = self._places
        for directory in (places.run, places.notices, places.run / "nftables"):
            directory.mkdir(parents=True, exist_ok=True)
        self._await_devices()
        with self._step("the card's first partition"):
            self.fat = self._mount_fat()
        card: Card | None = None
        with self._step("the files of the card"):
            card = self._card()
        shared: Sequence[Shared] = ()
        with self._step("the list of state"):
            shared = shared_of(places.state_list.read_text("utf-8"))
        with self._step("the data partition"):
            self._data(card, shared)
        for each in shared:
            with self._step(str(each.at)):
                self._share(each)
        kept = settle.decode_untrusted(read(places.own / settle.SETTINGS) or b"")
        now = settled(card, kept)
        token = token_of(card)
        with self._step("the machine id"):
            self._machine_id()
        name = now.name or name_for(self._text(places.own / MACHINE_ID) or self._text(self._running))
        with self._step("the board's name"):
            self._name(name)
        with self._step("the time zone"):
            self._time_zone(now.time_zone)
        with self._step("ssh"):
            self._ssh(now.ssh_keys)
        with self._step("Wi-Fi"):
            self._wifi(now.network)
        with self._step("the console"):
            self._console(card)
        with self._step("the firewall"):
            self._firewall(now)
        with self._step("the configuration of Conflux"):
            now = self._configuration(now, name, token)
        with self._step("the token"):
            self._token(now, token)
        with self._step("the settings"):
            write(places.own / settle.SETTINGS, settle.encode(now), 0o600)
        self._report()

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, the board comes up, and says so
            self.notices.append(f"{what}: {printable(words_of(error))}")

    def _await_devices(self) -> None:
        """Wait for both partitions: they are there since the initramfs, unless the disk is not the root's."""
        gives_up_at = time.monotonic() + DEVICE_S
        devices = [self._places.devices / label for label in (FAT_LABEL, DATA_LABEL)]
        while not all(device.exists() for device in devices) and time.monotonic() < gives_up_at:
            time.sleep(DEVICE_POLL_S)

    # ── the card ──

    def _mount_fat(self) -> Fat:
        places = self._places
        device = places.devices / FAT_LABEL
        if not device.exists():
            raise OSError("there is none: write the image to the card again")
        if not self._system.is_mount(places.fat):
            self._system.run(["fsck.fat", "-a", device])
            places.fat.mkdir(parents=True, exist_ok=True)
            options = "ro,noatime,nosuid,nodev,noexec,umask=0077"
            self._system.require(["mount", "-t", "vfat", "-o", options, device, places.fat])
        return Fat(places.fat, self._system)

    def _card(self) -> Card | None:
        if self.fat is None:
            return None
        own = self.fat.read(NAME)
        card = None if own is None else read_untrusted(own, zones=self._is_zone)
        others = {name: found for name in imager.FILES if (found := self.fat.read(name)) is not None}
        whole = imager.joined(card, imager.read_untrusted(others, zones=self._is_zone))
        if whole is not None:
            self.notices += [printable(str(fault)) for fault in whole.faults]
        return whole

    def _is_zone(self, name: str) -> bool:
        try:
            return (self._places.zones / name).is_file()
        except (OSError, ValueError):
            return False

    # ── the data partition, and what is shared ──

    def _data(self, card: Card | None, shared: Sequence[Shared]) -> None:
        had_identity = self.fat is not None and bool(self.fat.read(IDENTITY))
        partition = DataPartition(self._places, self.fat, shared, self._system)
        seen = partition.prepare(had_identity=had_identity, invited=self._is_invited(card))
        log.info("data partition: %s", ", ".join(step.value for step in partition.steps))
        self.notices += data.notices(seen)
        with self._step("making this board new"):
            if seen.mounted and renew.finish(self._places, self.fat):
                self.lines.append("made new: it has forgotten which node it was (conflux board renew)")
            had_identity = self.fat is not None and bool(self.fat.read(IDENTITY))
        if seen.mounted and had_identity and not rescue.has_identity(self._places.state):
            self._without_key(is_invited=self._is_invited(card))
        with contextlib.suppress(OSError):
            room = os.statvfs(self._places.data)
            if not room.f_bfree:
                self.notices.append("the data partition is full: what is learned or changed from now on is not kept")

    def _is_invited(self, card: Card | None) -> bool:
        """Say whether the card has an invitation that is not known to be used: see watch.py, which writes that down."""
        token = token_of(card)
        known = (self.fat.read(IDENTITY) if self.fat is not None else None) or b""
        return token is not None and settle.digest(token).encode() not in known

    def _without_key(self, *, is_invited: bool) -> None:
        """A board that was a node has lost its key: a credential is of no use without it."""
        if not is_invited:
            self.notices.append(
                "the key of this board is gone from the data partition: it is no member any more, and makes no new key "
                "by itself. Put a new invitation into board.token to have it join as a new node"
            )
            return
        for name in (CHAIN, f"{rescue.SPARE}/{CHAIN}"):  # the first decides whether it is in a realm
            remove(self._places.state / name)
        self.notices.append("the key of this board was gone: with the new invitation it joins as a new node")

    def _share(self, each: Shared) -> None:
        inside = self._places.data / each.place
        inside.mkdir(parents=True, exist_ok=True)
        inside.chmod(each.mode)
        at = self._places.root / each.at.relative_to("/")
        at.mkdir(parents=True, exist_ok=True)
        if not self._system.is_mount(at):
            self._system.require(["mount", "--bind", inside, at])

    # ── what the card decides ──

    @property
    def _running(self) -> Path:
        return self._places.root / "etc" / MACHINE_ID

    def _text(self, path: Path) -> str:
        return (read(path) or b"").decode("ascii", "replace").strip()

    def _machine_id(self) -> None:
        """Keep the machine id that the initramfs gave; systemd reads it once, at its start."""
        kept = self._places.own / MACHINE_ID
        running = self._text(self._running)
        if not read(kept) and len(running) == 32:
            write(kept, f"{running}\n".encode())

    def _name(self, name: str) -> None:
        self.lines.append(f"name: {name}, on the LAN {name}.local")
        place = self._places.run / "hostname"
        write(place, f"{name}\n".encode())
        if self._places.root == Path("/"):
            socket.sethostname(name)
            self._system.require(["mount", "--bind", place, "/etc/hostname"])

    def _time_zone(self, zone: str | None) -> None:
        self.lines.append(f"time zone: {zone or 'UTC'}")
        link, beside = self._places.run / "localtime", self._places.run / ".localtime.new"
        beside.unlink(missing_ok=True)
        beside.symlink_to(self._places.zones / (zone or "Etc/UTC"))
        beside.replace(link)

    def _ssh(self, keys: tuple[str, ...]) -> None:
        place = self._places.own / "ssh"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        if not (read(place / HOST_KEY) or b"").startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
            self._make_host_key(place)
        allowed = place / "authorized_keys"
        if not keys:
            remove(allowed)
            self.lines.append("ssh: off, as the card gives no key (board.ssh_key)")
            return
        write(allowed, "".join(f"{key}\n" for key in keys).encode(), 0o600)
        self.lines.append(f"ssh: on for root, {len(keys)} key{'s' * (len(keys) > 1)}")

    def _make_host_key(self, place: Path) -> None:
        """Make the host key under another name: half a key would keep sshd from starting."""
        beside = place / f".{HOST_KEY}.new"
        for file in (beside, beside.with_name(f"{beside.name}.pub")):
            file.unlink(missing_ok=True)
        self._system.require(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", beside])
        write(place / f"{HOST_KEY}.pub", beside.with_name(f"{beside.name}.pub").read_bytes())
        write(place / HOST_KEY, beside.read_bytes(), 0o600)
        for file in (beside, beside.with_name(f"{beside.name}.pub")):
            file.unlink(missing_ok=True)

    def _wifi(self, network: wifi.Network | None) -> None:
        place = self._places.own / "wifi.conf"
        if network is None:
            remove(place)
            self.lines.append("Wi-Fi: off, as the card names no network (wifi.ssid)")
            return
        write(place, wifi.text_of(network).encode(), 0o600)
        self.lines.append(f"Wi-Fi: {printable(network.ssid)!r}")

    def _console(self, card: Card | None) -> None:
        place = self._places.run / "console-root"
        if card is not None and card.board.console == "root":
            write(place, b"")
            self.lines.append("console: A ROOT SHELL IS OPEN on the serial console (board.console), for development")
        else:
            place.unlink(missing_ok=True)

    def _firewall(self, now: Kept) -> None:
        ports = [now.conflux.get("control", {}).get("lan", {}).get("port"), now.conflux.get("page", {}).get("port")]
        device = now.conflux.get("tun", {}).get("name", OVERLAY)
        added = [f"add element inet board tcp_open {{ {port} }}\n" for port in ports if port and port not in PORTS]
        if not _NFT_NAME.fullmatch(device):
            self.notices.append(
                f"conflux.toml: conflux.tun.name: {device!r} cannot be named to the firewall, which lets nothing of it "
                "in: take letters, digits, - and _"
            )
        elif device != OVERLAY:
            added.append(f'add element inet board overlay {{ "{device}" }}\n')
        write(self._places.run / "nftables" / "card.nft", "".join(added).encode())

    # ── Conflux ──

    def _has_realm(self) -> bool:
        return (self._places.state / CHAIN).exists()

    def _configuration(self, now: Kept, name: str, token: str | None) -> Kept:
        """Make the daemon's configuration if the card changed, or has a token to be used."""
        table = daemon_file.table_of(now.conflux, name)
        made_of, place = daemon_file.digest_of(table), self._places.configuration
        present = (read(place) or b"").decode("utf-8", "replace")
        use = None if self._has_realm() else token
        if made_of != now.made_of or not present.strip() or (use is not None and use not in present):
            text = daemon_file.text_of(table, use)
            write(place, text.encode(), 0o600)  # it may hold passwords of TURN servers
            now = now._replace(made_of=made_of)
        place.chmod(0o600)  # also one of before
        return now if use is None else now._replace(token=settle.digest(use))

    def _token(self, now: Kept, token: str | None) -> None:
        """Erase a token that was used; the power may have failed before it was, or while it was."""
        if not self._has_realm():
            if token is None:
                return
            self._judge(token)
            self.lines.append("token: taken; it is erased here once the board is in the realm")
        elif token is not None and settle.digest(token) != now.token:
            self.notices.append("board.token was not used: this board is in a realm already; conflux leave ends that")
        elif forget(self._places, self.fat, token) is not None:
            self.notices.append(UNERASED)
        elif self.fat is not None:
            self.lines.append("token: used, and erased")

    def _judge(self, token: str) -> None:
        """Say at once what is wrong with an invitation, as far as it can be seen from it."""
        from conflux.realm.invite import Token  # loads cryptography: only for a board that has a token to use

        try:
            Token.parse(token)
        except Exception as error:  # noqa: BLE001  # whatever it is, the board comes up
            self.notices.append(f"{NAME}: board.token: {printable(words_of(error))}")

    # ── the report ──

    def _report(self) -> None:
        write(self._places.notices / "card", "".join(f"{line}\n" for line in self.notices).encode())
        write(self._places.run / "report", "".join(f"{line}\n" for line in self.lines).encode())
        for line in self.notices:
            log.warning("%s", line)
        try:
            write_log(self._places, self.fat, self.notices)
        except OSError as error:
            log.warning("%s: %s", LOG, words_of(error))


def main() -> int:
    """Do this boot's work."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    FirstBoot(Places()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
