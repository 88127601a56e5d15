"""The records that commands print with --json, and whether an object that one printed is such a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from conflux.api import nodes, rows, scheme, usage
from conflux.api.move import Moved
from conflux.api.ping import PingEnd, PingReply, PingTarget
from conflux.api.why import Why
from conflux.board.update import UpdateStatus
from conflux.cli import (
    approval,
    audit,
    board,
    config,
    control,
    daemon,
    doctor,
    join,
    leave,
    members,
    policy,
    publish,
    realm,
    report,
    revoke,
    rights,
    sdcard,
    succession,
    update,
)
from conflux.cli import help as cli_help
from conflux.shell.feed import EventRow, EventsLost

# What each command prints: one record, or one of these.
ANSWERS: dict[str, tuple[type, ...]] = {
    "status": (rows.Status,),
    "ip": (nodes.AddressRow,),
    "hosts": (nodes.Nodes,),
    "streams": (rows.Streams,),
    "paths": (rows.Paths,),
    "version": (cli_help.Version,),
    "links": (rows.Links,),
    "usage": (usage.Usage,),
    "route": (rows.Explained,),
    "route move": (Moved,),
    "watch": (EventRow, EventsLost),
    "ping": (PingTarget, PingReply, PingEnd),
    "why": (Why,),
    "join": (realm.Joined, join.Asked),
    "leave": (leave.Left,),
    "realm create": (realm.Joined,),
    "realm invite": (realm.InviteMade,),
    "realm sign": (realm.Signed,),
    "realm members": (members.Members,),
    "realm invites": (members.Invites,),
    "realm invites cancel": (members.Withdrawn,),
    "realm grant": (rights.Granted,),
    "realm accept": (rights.Accepted,),
    "realm rename": (rights.Renamed,),
    "realm pending": (approval.Pending,),
    "realm approve": (approval.Decided,),
    "realm refuse": (approval.Decided,),
    "realm audit": (audit.Entries, audit.Verified),
    "realm backup": (succession.BackedUp,),
    "realm restore": (succession.Restored,),
    "realm revoke": (revoke.RevokedNode,),
    "realm revoked": (revoke.RevokedNodes,),
    "control init": (control.BrokerMade,),
    "control announce": (control.Announced,),
    "control push": (control.Pushed,),
    "control check": (control.BrokerChecked,),
    "up": (daemon.Up,),
    "down": (daemon.Down,),
    "config check": (config.Checked,),
    "config show": (config.Values,),
    "config mask": (config.MaskedFile,),
    "policy check": (policy.PolicyChecked,),
    "policy publish": (publish.Published, policy.PolicyChecked),
    "policy show": (publish.PolicyShown,),
    "policy diff": (publish.PolicyDiff,),
    "policy rollback": (publish.Published, policy.PolicyChecked),
    "doctor": (doctor.Examined,),
    "reload": (rows.Reloaded,),
    "report": (report.Written,),
    "sdcard write": (sdcard.CardWritten,),
    "sdcard prepare": (sdcard.CardPrepared,),
    "update": (update.Updated, UpdateStatus),
    "update mark-good": (update.Marked,),
    "update rollback": (update.Updated,),
    "board renew": (board.BoardRenewed,),
}

_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    NoneType: (NoneType,),
}


def misfits(printed: Any, words: str) -> list[str]:
    """Return what a printed object has that no answer of a command has; empty if it is one."""
    assert printed[scheme.KEY] == scheme.VERSION
    keyed = {key: value for key, value in printed.items() if key != scheme.KEY}
    tried = [list(_faults(keyed, record, record.__name__)) for record in ANSWERS[words]]
    return [] if [] in tried else tried[0]


def _faults(value: Any, hint: Any, where: str) -> Iterator[str]:
    if get_origin(hint) in (Union, UnionType):
        if all(list(_faults(value, kind, where)) for kind in get_args(hint)):
            yield f"{where}: {value!r} is none of {hint}"
    elif get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for index, each in enumerate(value):
            yield from _faults(each, inner, f"{where}[{index}]")
    elif get_origin(hint) is Mapping:
        inner = get_args(hint)[-1]
        for key, each in value.items():
            yield from _faults(each, inner, f"{where}[{key!r}]")
    elif get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        if value not in [str(word) for word in (get_args(hint) or hint)]:
            yield f"{where}: {value!r} is none of its words"
    elif hint in _PLAIN:
        if type(value) not in _PLAIN[hint]:
            yield f"{where}: {value!r} is no {hint.__name__}"
    elif hint is not Any:
        hints = get_type_hints(hint)
        if not isinstance(value, dict) or list(value) != list(hints):
            yield f"{where}: {value!r} has not the keys {list(hints)}"
            return
        for key, each in hints.items():
            yield from _faults(value[key], each, f"{where}.{key}")
