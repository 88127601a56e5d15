"""Checks of the control port, of the firewall before it, and of the fence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from conflux.control.lan.config import MDNS_PORT
from conflux.doctor import ruleset
from conflux.doctor.finding import AS_ROOT, Check, Finding, bad, good, unseen
from conflux.doctor.host import look_at_interfaces
from conflux.doctor.ruleset import Blocker, Fate, Packet
from conflux.doctor.subject import Answer, Subject

CONNECT_S = 1.0  # to an address of this host: microseconds, unless a firewall drops it
NFT_S = 10.0
NFT_BYTES_MAX = 1 << 24
MANAGERS = ("ufw", "firewall-cmd")
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
LISTENS = "0A"  # of /proc/net/tcp: TCP_LISTEN
LEGACY = Path("/proc/net/ip_tables_names")


class Port(NamedTuple):
    """taken: something listens on the port.  refused, silent: addresses of this host at which it does not answer.

    runs: a daemon of this node does; None: it may not be asked.  manager: the program that manages the firewall here,
    as in MANAGERS; "": none, or nft.
    """

    enabled: bool
    number: int
    runs: bool | None
    taken: bool
    tried: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    manager: str = ""


def look_at_port(seen: Subject, *, deep: bool) -> Port:
    """Look whether something listens on the control port, and, if deep, connect to each address of this host."""
    lan = seen.config.control.lan
    runs = None if seen.daemon.answer is Answer.FORBIDDEN else seen.daemon.runs
    port = Port(lan.enabled, lan.port, runs, _is_taken(lan.port), manager=manager())
    # What is bound to an interface does not hear this host itself, so nothing can be said then.
    if not (deep and port.enabled and port.runs and port.taken) or lan.interfaces:
        return port
    addresses = [each for _, found in look_at_interfaces(seen).usable for each in found if not each.startswith("fe80:")]
    refused, silent = _connect(addresses, lan.port)
    return port._replace(tried=tuple(addresses), refused=refused, silent=silent)


def judge_port(seen: Port) -> Iterator[Finding]:
    """Judge the control port."""
    if not seen.enabled:
        yield good(Check.PORT, "control.lan is switched off")
    elif seen.runs is None and seen.taken:
        yield good(Check.PORT, f"a program listens on TCP port {seen.number}")
    elif seen.taken and not seen.runs:
        said = f"TCP port {seen.number} is taken, and no daemon of this node answers"
        yield bad(Check.PORT, said, f"sudo ss -ltnp sport = :{seen.number}    # or choose another control.lan.port")
    elif not seen.taken and seen.runs:
        yield bad(Check.PORT, f"nothing listens on TCP port {seen.number}", "sudo conflux down; sudo conflux up")
    elif not seen.taken:
        yield good(Check.PORT, f"TCP port {seen.number} is free")
    elif seen.silent:
        said = f"TCP port {seen.number} of {', '.join(seen.silent)} does not answer: a firewall drops it"
        yield bad(Check.PORT, said, open_port(seen.manager, "tcp", seen.number))
    elif seen.refused:
        said = f"TCP port {seen.number} of {', '.join(seen.refused)} refuses connections"
        yield bad(Check.PORT, said, open_port(seen.manager, "tcp", seen.number))
    else:
        at = f", reached at {', '.join(seen.tried)}" if seen.tried else ""
        yield good(Check.PORT, f"the daemon listens on TCP port {seen.number}{at}")


class Firewall(NamedTuple):
    """rules: of nftables, None if they cannot be read, with the reason.  legacy: iptables has rules of its own."""

    port: int | None  # None: the LAN channel is off
    mdns: bool
    device: str
    interfaces: tuple[str, ...]
    rules: Mapping[str, Any] | None
    why_not: str
    legacy: bool
    runs: bool
    manager: str = ""


def look_at_firewall(seen: Subject) -> Firewall:
    """Read the rules of nftables, if that is permitted."""
    lan = seen.config.control.lan
    rules, why_not = _rules()
    interfaces: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        interfaces = tuple(name for name, _ in look_at_interfaces(seen).usable)
    device = str((seen.daemon.status.get("device") or {}).get("name", seen.config.tun.name))
    legacy = False
    with contextlib.suppress(OSError):
        legacy = bool(LEGACY.read_text("ascii").split())
    port = lan.port if lan.enabled else None
    return Firewall(port, lan.mdns, device, interfaces, rules, why_not, legacy, seen.daemon.runs, manager())


def firewall(seen: Firewall) -> Iterator[Finding]:
    """Judge what the rules do to what neighbours send."""
    if seen.rules is None:
        yield unseen(Check.FIREWALL, seen.why_not, AS_ROOT)
        return
    if seen.port is None:
        yield good(Check.FIREWALL, "control.lan is switched off: nothing has to be let in")
        return
    wanted = [Packet("tcp", seen.port, name) for name in seen.interfaces]
    if seen.mdns:
        wanted += [Packet("udp", MDNS_PORT, name) for name in seen.interfaces]
    is_good = True
    for packet in wanted:
        judged = ruleset.judge(seen.rules, packet, but=f"conflux-{seen.device}")
        what = f"{packet.protocol.upper()} port {packet.port} on {packet.interface}"
        if judged.fate is Fate.BLOCKED and judged.by is not None:
            is_good = False
            said = f"{what} is dropped by chain {judged.by.chain} of table {judged.by.family} {judged.by.table}"
            yield bad(Check.FIREWALL, said, open_port(seen.manager, packet.protocol, packet.port, judged.by))
        elif judged.fate is Fate.UNCLEAR:
            is_good = False
            yield unseen(Check.FIREWALL, f"{what}: its rules are too rich for this check", "sudo nft list ruleset")
    if is_good and seen.legacy:
        yield unseen(Check.FIREWALL, "legacy iptables has rules, which were not looked at", "sudo iptables-legacy -S")
    elif is_good:
        yield good(Check.FIREWALL, "lets neighbours in")


def fence(seen: Firewall) -> Iterator[Finding]:
    """Judge whether the table is there that keeps overlay addresses to the TUN device."""
    if not seen.runs:
        return
    if seen.rules is None:
        yield unseen(Check.FENCE, seen.why_not, AS_ROOT)
    elif ("inet", f"conflux-{seen.device}") in ruleset.tables(seen.rules):
        yield good(Check.FENCE, f"overlay addresses pass {seen.device} alone")
    else:
        said = f"there is no table inet conflux-{seen.device}: hosts on the LAN reach overlay addresses"
        yield bad(Check.FENCE, said, "sudo modprobe nf_tables; sudo conflux down; sudo conflux up")


def open_port(manager: str, protocol: str, port: int, by: Blocker | None = None) -> str:
    """Return the command that lets a port in, by what manages the firewall here."""
    if manager == "ufw":
        return f"sudo ufw allow {port}/{protocol}"
    if manager == "firewall-cmd":
        return f"sudo firewall-cmd --add-port={port}/{protocol}    # and once more with --permanent"
    if by is None:
        return "sudo nft list ruleset    # docs/how-to/firewall.md says what to let in"
    return f"sudo nft insert rule {by.family} {by.table} {by.chain} {protocol} dport {port} accept"


def manager() -> str:
    """Return which of MANAGERS is installed; "" if none is."""
    return next((each for each in MANAGERS if shutil.which(each, path=PROGRAMS) is not None), "")


def _rules() -> tuple[Mapping[str, Any] | None, str]:
    """Return the rules of nftables, or None and why not."""
    program = shutil.which("nft", path=PROGRAMS)
    if program is None:
        return None, "the program nft is not installed"
    if os.geteuid() != 0:
        return None, "only root may read the rules of the firewall"
    try:
        done = subprocess.run(  # noqa: S603  # a program of the system
            [program, "-j", "list", "ruleset"],
            capture_output=True,
            timeout=NFT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode or len(done.stdout) > NFT_BYTES_MAX:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            return None, f"nft cannot list the rules: {said[-1][:160]}"
        rules = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return None, f"nft cannot list the rules: {error}"
    return (rules, "") if isinstance(rules, dict) else (None, "nft printed no rules")


def _is_taken(port: int) -> bool:
    """Say whether something listens on a TCP port of any address."""
    suffix = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(path).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[1].endswith(suffix) and words[3] == LISTENS:
                    return True
    return False


def _connect(addresses: list[str], port: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Connect to all addresses at once, and return those that refused and those that were silent."""
    refused, waiting = [], {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            probe = opened.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            code = probe.connect_ex((address, port))
            if code in (0, errno.EINPROGRESS):
                waiting[address] = probe
                selector.register(probe, selectors.EVENT_WRITE, address)
            else:
                refused.append(address)
        end = time.monotonic() + CONNECT_S
        while waiting and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                probe = waiting.pop(key.data)
                selector.unregister(probe)
                if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    refused.append(key.data)
    return tuple(refused), tuple(waiting)
