"""What an nftables ruleset, as `nft -j list ruleset` prints it, does to a new packet that comes in from a LAN.

Only what a plain firewall is made of is understood: protocols, ports, interfaces, connection states, sets, jumps.  Of
anything else it is not known whether a packet fits, and a rule that may accept is taken as one that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

DEPTH_MAX = 16  # of jumps; the kernel's own bound
HOOKS = ("prerouting", "input")

Rules = Mapping[tuple[str, str, str], list[Any]]  # by family, table and chain


class Packet(NamedTuple):
    """protocol: "tcp" or "udp".  interface: by which it comes in.  version: of IP."""

    protocol: str
    port: int
    interface: str
    version: int = 4


class Fate(StrEnum):
    """What becomes of a packet."""

    PASSES = "passes"
    BLOCKED = "blocked"
    UNCLEAR = "unclear"


class Blocker(NamedTuple):
    """A chain that drops a packet."""

    family: str
    table: str
    chain: str


class Judged(NamedTuple):
    """by: the chain that blocks, else None."""

    fate: Fate
    by: Blocker | None = None


class _End(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    GOES_ON = "goes on"


def tables(ruleset: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return (family, name) of every table."""
    return {(str(each["table"].get("family")), str(each["table"].get("name"))) for each in _objects(ruleset, "table")}


def judge(ruleset: Mapping[str, Any], packet: Packet, *, but: str = "") -> Judged:
    """Return what becomes of a packet.  but: a table that is left out."""
    rules: dict[tuple[str, str, str], list[Any]] = {}
    for each in _objects(ruleset, "rule"):
        rule = each["rule"]
        rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))
    sets = {(s["set"]["family"], s["set"]["table"], s["set"]["name"]): s["set"] for s in _objects(ruleset, "set")}
    bases = [
        each["chain"]
        for each in _objects(ruleset, "chain")
        if each["chain"].get("hook") in HOOKS
        and each["chain"].get("type") == "filter"
        and each["chain"]["family"] in ("inet", "ip" if packet.version == 4 else "ip6")
        and each["chain"]["table"] != but
    ]
    unclear = False
    for chain in sorted(bases, key=lambda each: (HOOKS.index(each["hook"]), _priority(each))):
        walk = _Walk(rules, sets, packet)
        end = walk.through((chain["family"], chain["table"], chain["name"]))
        if end is _End.GOES_ON:
            end = _End.DROP if chain.get("policy") == "drop" else _End.ACCEPT
        if end is _End.DROP and not walk.may_accept:
            return Judged(Fate.BLOCKED, Blocker(chain["family"], chain["table"], chain["name"]))
        unclear = unclear or end is _End.DROP
    return Judged(Fate.UNCLEAR if unclear else Fate.PASSES)


def _priority(chain: Mapping[str, Any]) -> int:
    value = chain.get("prio", 0)
    return value if isinstance(value, int) else 0


def _objects(ruleset: Mapping[str, Any], kind: str) -> Iterable[Any]:
    return (each for each in ruleset.get("nftables", ()) if isinstance(each, dict) and kind in each)


class _Walk:
    """One packet's way through one base chain.  may_accept: a rule that is not understood may have accepted it."""

    def __init__(self, rules: Rules, sets: Mapping[tuple[str, str, str], Any], packet: Packet) -> None:
        self._rules = rules
        self._sets = sets
        self._packet = packet
        self.may_accept = False

    def through(self, chain: tuple[str, str, str], depth: int = 0) -> _End:
        """Return how a chain ends."""
        if depth > DEPTH_MAX:
            return _End.GOES_ON
        for expressions in self._rules.get(chain, ()):
            fits: bool | None = True
            for each in expressions:
                (kind, value), *_ = each.items()
                if kind == "match":
                    found = self._fits(value, chain)
                    fits = False if found is False else None if found is None else fits
                elif kind in ("limit", "xt", "quota", "connlimit", "meter"):
                    fits = None if fits else fits
                elif kind in ("vmap", "queue"):
                    self.may_accept = self.may_accept or fits is not False
                elif kind in ("accept", "drop", "reject", "jump", "goto", "return") and fits is not False:
                    end = self._verdict(kind, value, chain, depth, sure=fits is True)
                    if end is not None:
                        return end
                if fits is False:
                    break
        return _End.GOES_ON

    def _verdict(self, kind: str, value: Any, chain: tuple[str, str, str], depth: int, *, sure: bool) -> _End | None:
        """Return how the chain ends here; None: it goes on behind this rule."""
        if kind in ("jump", "goto"):
            end = self.through((chain[0], chain[1], value["target"]), depth + 1)
            if not sure:
                self.may_accept = self.may_accept or end is _End.ACCEPT
                return None
            return end if end is not _End.GOES_ON or kind == "goto" else None
        if not sure:
            self.may_accept = self.may_accept or kind == "accept"
            return None
        return {"accept": _End.ACCEPT, "return": _End.GOES_ON}.get(kind, _End.DROP)

    def _fits(self, match: Mapping[str, Any], chain: tuple[str, str, str]) -> bool | None:
        """Say whether the packet fits a match; None: not known."""
        left, right, is_not = match.get("left"), match.get("right"), match.get("op") == "!="
        found = self._compare(left, right, chain)
        return found if found is None else found is not is_not

    def _compare(self, left: Any, right: Any, chain: tuple[str, str, str]) -> bool | None:
        if not isinstance(left, dict):
            return None
        packet = self._packet
        if "ct" in left and left["ct"].get("key") == "state":
            return self._within("new", right, chain)
        if "meta" in left:
            known: dict[str, Any] = {
                "l4proto": packet.protocol,
                "iifname": packet.interface,
                "iif": packet.interface,
                "nfproto": "ipv4" if packet.version == 4 else "ipv6",
            }
            key = left["meta"].get("key")
            return self._within(known[key], right, chain) if key in known else None
        field = left.get("payload")
        if not isinstance(field, dict):
            return None
        protocol, name = field.get("protocol"), field.get("field")
        if (protocol, name) in (("ip", "protocol"), ("ip6", "nexthdr")):
            return self._is_version(protocol) and self._within(packet.protocol, right, chain)
        if protocol in ("ip", "ip6"):
            return None if self._is_version(protocol) else False
        if protocol == "th" or protocol == packet.protocol:
            return self._within(packet.port, right, chain) if name == "dport" else None
        return False if protocol in ("tcp", "udp", "icmp", "icmpv6", "sctp", "udplite", "dccp") else None

    def _is_version(self, protocol: object) -> bool:
        return (protocol == "ip") == (self._packet.version == 4)

    def _within(self, value: Any, right: Any, chain: tuple[str, str, str]) -> bool | None:
        """Say whether a value is one of those at the right of a match."""
        match right:
            case {"set": members} | {"prefix": members}:
                return self._one_of(value, members, chain)
            case {"range": [least, most]}:
                return isinstance(value, int) and isinstance(least, int) and least <= value <= most
            case list():
                return self._one_of(value, right, chain)
            case str() if right.startswith("@"):
                named = self._sets.get((chain[0], chain[1], right[1:]))
                return None if named is None else self._one_of(value, named.get("elem", []), chain)
            case str() if right.endswith("*") and isinstance(value, str):
                return value.startswith(right[:-1])
            case str() | int():
                return bool(value == right)
            case _:
                return None

    def _one_of(self, value: Any, members: Any, chain: tuple[str, str, str]) -> bool | None:
        if not isinstance(members, list):
            return None
        found = [self._within(value, each["elem"]["val"] if _is_elem(each) else each, chain) for each in members]
        return True if True in found else None if None in found else False


def _is_elem(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("elem"), dict) and "val" in each["elem"]
