"""A finding: what one check says of one thing, and what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Check(StrEnum):
    """What is looked at, in the order of the looking."""

    BOARD = "board"
    CONFIGURATION = "configuration"
    DAEMON = "daemon"
    NEIGHBOURS = "neighbours"
    VERSIONS = "versions"
    STATE = "state"
    DISK = "disk"
    CREDENTIAL = "credential"
    CLOCK = "clock"
    TUN = "tun"
    MTU = "mtu"
    INTERFACES = "interfaces"
    PREFIXES = "prefixes"
    KERNEL = "kernel"
    PORT = "port"
    FIREWALL = "firewall"
    FENCE = "fence"
    MULTICAST = "multicast"
    BROKER = "broker"
    LOG = "log"


class Grade(StrEnum):
    """What a finding says."""

    GOOD = "good"
    BAD = "bad"
    UNSEEN = "unseen"  # it could not be looked at


class Finding(NamedTuple):
    """text: what was seen.  remedy: one command, or one step, that mends it or shows it; "" if nothing is to be done.

    A bad finding always has a remedy.
    """

    check: Check
    grade: Grade
    text: str
    remedy: str = ""


def good(check: Check, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Grade.GOOD, text)


def bad(check: Check, text: str, remedy: str) -> Finding:
    """Return that something is wrong."""
    return Finding(check, Grade.BAD, text, remedy)


def unseen(check: Check, text: str, remedy: str = "") -> Finding:
    """Return that it could not be looked at."""
    return Finding(check, Grade.UNSEEN, text, remedy)


AS_ROOT = "sudo conflux doctor"
