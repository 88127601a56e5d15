"""Policies, ends and flows by Hypothesis, from few words: so that they meet."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

from conflux.policy.reading import read_untrusted
from conflux.policy.rules import End, Exit, Node, Policy
from conflux.policy.terms import key_of

TAGS = ("t0", "t1", "t2")
NAMES = ("n0", "n1", "n2")
CLOSED = [*(f"tag:{tag}" for tag in TAGS), *NAMES]
SUBNETS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "fd12::/48", "fd12:0:0:1::/64"]
SOURCES = [*CLOSED, *SUBNETS, "members", "*"]
FLOWS = ["any", "tcp", "tcp/22", "tcp/20-30", "tcp/25-40", "udp", "udp/22", "icmp", "icmp/echo", "ip/47", "sctp/1-9"]
HOSTS = ("10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "11.0.0.1", "fd12::1", "fd12:0:0:1::1", "fd13::1")
MOMENTS = [f"2027-01-0{day}T00:00:00Z" for day in (1, 2, 3, 4)]
NOWS = [1_798_761_600 + 86_400 * half // 2 for half in range(-1, 9)]

KEYS = st.sampled_from(
    [key_of(6, port) for port in (0, 1, 20, 22, 25, 30, 31, 40, 41, 65535)]
    + [key_of(17, 22), key_of(17, 23), key_of(1, 8), key_of(1, 0), key_of(58, 128), key_of(58, 129)]
    + [key_of(47, 0), key_of(132, 9), key_of(132, 10), key_of(0, 0), key_of(255, 0), key_of(59, 0)]
)
NODES = st.builds(Node, st.sampled_from((None, *NAMES, "n9")), st.frozensets(st.sampled_from((*TAGS, "t9"))))
ENDS: st.SearchStrategy[End] = NODES | st.sampled_from(HOSTS).map(ip_address) | st.just(Exit())


def some(words: list[str]) -> st.SearchStrategy[list[str]]:
    """Return lists of some words, each once; of prefixes one in another, the first alone."""
    return st.lists(st.sampled_from(words), min_size=1, max_size=3, unique=True).map(_apart)


def _apart(words: list[str]) -> list[str]:
    prefixes = [word for word in words if "/" in word]
    return [word for word in words if word not in prefixes[1:]]


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Draw one rule without its name, as TOML."""
    lines = [
        f"from = {draw(some(SOURCES))}",
        f"to = {draw(some([*SOURCES, *['exit'] * 4]))}",
        f"on = {draw(st.lists(st.sampled_from(FLOWS), min_size=1, max_size=3, unique=True))}",
    ]
    times = sorted(draw(st.lists(st.sampled_from(MOMENTS), max_size=2, unique=True)))
    keys = ("since", "until") if len(times) == 2 else (draw(st.sampled_from(("since", "until"))),)
    lines += [f"{key} = {moment}" for key, moment in zip(keys, times, strict=False)]
    return "\n".join(lines) + "\n"


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw the head of a rule file, and its rules."""
    default = draw(st.sampled_from(("allow", "deny")))
    closed = draw(st.lists(st.sampled_from(CLOSED), max_size=2, unique=True))
    return f'version = 1\ndefault = "{default}"\nclosed = {closed}\n', draw(st.lists(rules(), max_size=6))


def written(head: str, blocks: list[str]) -> str:
    """Return a rule file; its rules are named by their place."""
    return head + "".join(f'[[allow]]\nname = "{number}"\n{block}' for number, block in enumerate(blocks))


def read(text: str) -> Policy:
    """Return a rule file that is right."""
    got = read_untrusted(text.encode())
    assert got.policy is not None, got.faults
    return got.policy


POLICIES = texts().map(lambda drawn: read(written(*drawn)))
