"""cext/policy/ against conflux/policy/: the same verdict of any flow by any rules; no bytes for a table do harm."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kit.driven import Driven, build
from kit.policies import HOSTS, KEYS, NODES, NOWS, POLICIES
from kit.policy_packets import PACKETS

from conflux.policy.flow import Flow, Unfit, read_flow_untrusted
from conflux.policy.judge import judge
from conflux.policy.rules import End, Exit, Node, Policy, Rule
from conflux.policy.table import Here, Table, number_of, table_of
from conflux.policy.terms import ANY, GLOBAL, NOT_GLOBAL, Kind, Term

OWN = tuple(map(ip_address, ("100.64.0.9", "fd99::9")))
FOREIGN = tuple(map(ip_address, ("100.64.0.8", "169.254.1.1", "fe80::1", "::", "0.0.0.0", "255.255.255.255")))
WORLD = tuple(map(ip_address, ("8.8.8.8", "2606:4700::1111", "1.0.0.0", "2002::1")))
PLACES = st.sampled_from((*map(ip_address, HOSTS), *OWN, *FOREIGN, *WORLD))


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("policy/policy_driver.c", "policy/policy.c", "policy/flow.c")) as driven:
        yield driven


def hexed(number: int) -> str:
    return number.to_bytes(16).hex()


def heres() -> st.SearchStrategy[Here]:
    subnets = st.sampled_from(((), ("10.0.0.0/8",), ("10.1.0.0/17", "fd12::/47"), ("10.1.2.3/32", "11.0.0.0/8")))
    granted = subnets.map(lambda texts: tuple(map(ip_network, texts)))
    return st.builds(Here, NODES, st.just(OWN), granted, st.booleans())


def is_global(address) -> bool:
    """Say whether an exit leads to an address: one by one, where a table cuts ranges."""
    return any(address in each for each in GLOBAL) and not any(address in each for each in NOT_GLOBAL)


def target_of(here: Here, address) -> End | None:
    """Return what an address is on a board; None: nothing that it serves."""
    if address in here.addresses:
        return here.node
    if any(address.version == each.version and address in each for each in here.subnets):
        return address
    return Exit() if here.offers_exit and is_global(address) else None


@settings(max_examples=150, deadline=None)
@given(
    POLICIES,
    heres(),
    st.lists(NODES, max_size=5),
    st.lists(st.tuples(st.integers(0, 9), PLACES, KEYS), min_size=1, max_size=25),
    st.sampled_from(NOWS),
)
def test_the_compiled_judge_says_of_any_flow_what_the_rules_say(
    driver: Driven,
    policy: Policy,
    here: Here,
    peers: list[Node],
    asked: list[tuple[int, object, int]],
    now: int,
) -> None:
    table, classes = table_of(policy, here, peers, at_unix=now)
    assert driver.ask(f"t {table.encode().hex()}") == str(len(table.rows))
    sources: list[tuple[End, int]] = list(zip(peers, classes, strict=True))
    for host in map(ip_address, HOSTS):
        sources.append((host, table.class_of(host)))
        assert driver.ask(f"c {hexed(number_of(host))}") == str(table.class_of(host))
    for number, address, key in asked:
        source, source_class = sources[number % len(sources)]
        target = target_of(here, address)
        said = driver.ask(f"a {source_class} {hexed(number_of(address))} {key}") == "1"
        assert said == table.allows(source_class, address, key)
        wanted = target is not None and judge(policy, source, target, key >> 16, key & 0xFFFF, at_unix=now).is_allowed
        event(f"allowed: {wanted}")
        assert said == wanted


@settings(max_examples=60, deadline=None)
@given(POLICIES, heres(), st.lists(NODES, max_size=3), st.sampled_from(NOWS), st.integers(0, 7))
def test_a_table_holds_until_the_next_moment_of_a_rule(policy, here, peers, now, later):
    table, classes = table_of(policy, here, peers, at_unix=now)
    at = now + later * 43_200
    if table.until is None or at < table.until:
        again, classes_then = table_of(policy, here, peers, at_unix=at)
        assert again[:4] == table[:4]
        assert classes_then == classes


@settings(max_examples=300, deadline=None)
@given(PACKETS)
def test_the_compiled_reader_reads_of_any_packet_what_its_twin_reads(driver, packet):
    read = read_flow_untrusted(packet)
    said = driver.ask(f"f {packet.hex() or '-'}")
    event(read.name if isinstance(read, Unfit) else read.piece.name)
    assert said == words(read)


def words(read: Flow | Unfit) -> str:
    if isinstance(read, Unfit):
        return f"unfit {read}"
    source, destination, *rest = read
    return " ".join([source.hex(), destination.hex(), *(str(int(each)) for each in rest)])


EXIT = Rule(0, "travel", (Term(Kind.TAG, "t0"),), (Term(Kind.EXIT),), (ANY,), None, None, ())


def test_an_exit_leads_to_the_same_hosts_in_both(driver):
    rules = RULES._replace(rules=(EXIT,))
    peers = [Node("a", frozenset({"t0"})), Node("b")]
    table, classes = table_of(rules, Here(Node("me"), OWN, (), True), peers, at_unix=0)
    driver.ask(f"t {table.encode().hex()}")
    edges = {number for each in (*GLOBAL, *NOT_GLOBAL) for number in (each[0], each[-1])}
    places = {each + step for each in edges for step in (-1, 0, 1) if 0 <= int(each) + step < 2**each.max_prefixlen}
    for address in (*places, *WORLD, *FOREIGN):
        asked = [driver.ask(f"a {each} {hexed(number_of(address))} {6 << 16 | 443}") == "1" for each in classes]
        assert asked == [is_global(address), False]


def small() -> Table:
    here = Here(Node("me"), OWN, (ip_network("10.0.0.0/8"),), True)
    return table_of(RULES, here, [Node("a")], at_unix=0)[0]


RULES = Policy(True, frozenset(), (), (), None, None, None)


def test_a_class_that_a_table_has_not_passes_nothing(driver):
    table = small()
    driver.ask(f"t {table.encode().hex()}")
    own, key = hexed(number_of(OWN[0])), 6 << 16 | 22
    assert [driver.ask(f"a {each} {own} {key}") for each in (0, 1, 2, 2**32 - 1)] == ["0", "1", "0", "0"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_table_that_was_changed_is_refused_or_stays_in_bounds(driver, data):
    encoded = bytearray(small().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded) // 4 - 1)) * 4
        encoded[at : at + 4] = data.draw(
            st.sampled_from((0, 1, 2, 3, 2**20, 2**20 + 1, 2**24, 2**31, 2**32 - 1)) | st.integers(0, 2**32 - 1)
        ).to_bytes(4)
    cut = data.draw(st.none() | st.integers(0, len(encoded)))
    said = driver.ask(f"t {bytes(encoded[:cut]).hex() or '-'}")
    event("refused" if said == "none" else "taken")
    if said != "none":
        for address in (*OWN, *WORLD, *FOREIGN):
            driver.ask(f"c {hexed(number_of(address))}")
            for source_class in range(int(said) + 1):
                driver.ask(f"a {source_class} {hexed(number_of(address))} {6 << 16}")


@pytest.mark.parametrize(
    ("place", "number"),
    [
        (0, 0x43585032),  # another version
        (4, 0),  # no column
        (8, 0),  # no class
        (12, 0),  # no permit
        (4, 2**20 + 1),
        (8, 2**32 - 1),
        (28, 1),  # the first span of permit 0 is not span 0
        (32, 1),  # class 0 has flows
        (44, 2**24),  # behind the last flow
    ],
)
def test_a_table_with_a_wrong_number_is_refused(driver, place, number):
    encoded = bytearray(small().encode())
    assert driver.ask(f"t {encoded.hex()}") != "none"
    encoded[place : place + 4] = struct.pack(">I", number)
    assert driver.ask(f"t {encoded.hex()}") == "none"
