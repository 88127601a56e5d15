"""Every reason of a drop that the code has is explained, in the code and on status-and-drops.md alike, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from kit.tree import DOCS, TREE, nodes

from conflux.api.drops import JOIN, MEANINGS, DropKind, drop_rows, meaning, of_kind
from conflux.realm.reason import Reason

PAGE = DOCS / "reference" / "status-and-drops.md"

# Calls whose argument is a reason, by the name of the function: with the place of that argument.
COUNTED = {"_drop": 0, "drop": 0, "refuse": 1, "_forget": 1, "remove_egress": 1}
# Counted as "join-..." alone: no renewal, card or list ends so.
OF_JOINS_ALONE = frozenset(
    {
        *(Reason.UNKNOWN_INVITE, Reason.BAD_PROOF, Reason.INVITE_EXPIRED, Reason.USED_UP, Reason.NAME_TAKEN),
        *(Reason.WRONG_NAME, Reason.TOO_MANY_NAMES, Reason.WAITING, Reason.REFUSED),
    }
)
# What a program says to the person who runs it; nothing is counted under it.
COMMANDS = ("conflux/cli/", "conflux/broker/")


@cache
def trees() -> tuple[tuple[ast.AST, ...], ...]:
    """Return the nodes of every module of the package that may count something."""
    files = {str(file.relative_to(TREE)): file for file in sorted((TREE / "conflux").rglob("*.py"))}
    return tuple(nodes(file) for name, file in files.items() if not name.startswith(COMMANDS))


def words(value: ast.expr) -> Iterator[str]:
    """Yield the words that an expression may be: "a" if x else "b" is two."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from (*words(value.body), *words(value.orelse))


def of_enums() -> Iterator[str]:
    """Yield every word of every enum called Drop."""
    for tree in trees():
        for node in tree:
            if isinstance(node, ast.ClassDef) and node.name == "Drop":
                yield from (word for each in node.body if isinstance(each, ast.Assign) for word in words(each.value))


def in_calls() -> Iterator[str]:
    """Yield the words that are counted or raised as they stand."""
    for tree in trees():
        for node in tree:
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                place = 0 if called == "RemoteProtocolError" else COUNTED.get(called)
                if place is not None and len(node.args) > place:
                    yield from words(node.args[place])
            elif isinstance(node, ast.Subscript) and "drop" in ast.unparse(node.value):
                yield from words(node.slice)


def of_realm() -> Iterator[str]:
    """Yield the reasons for which the realm does not vouch for something, or renews nothing."""
    yield from (word.value for word in Reason if word not in OF_JOINS_ALONE)


def reasons() -> set[str]:
    """Return every reason under which something can be counted."""
    return {*of_enums(), *in_calls(), *of_realm(), "auth"}  # "auth": AuthError


def on_page() -> dict[str, tuple[str, str]]:
    """Return kind and meaning of each word of the page's section about drops, as plain text."""
    section = PAGE.read_text().partition("\n## Drops\n")[2]
    found: dict[str, tuple[str, str]] = {}
    for cells in re.findall(r"^\| ([^|]+) \| (normal|alarming) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE):
        text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", cells[2]).replace("`", "")
        for word in re.findall(r"`([^`]+)`", cells[0]):
            before = f"{found[word][1]}; or " if word in found else ""
            found[word] = (cells[1], before + text)
    return found


def test_every_reason_of_the_code_has_a_meaning_and_no_other_word_has():
    assert reasons() == set(MEANINGS)


def test_the_page_says_of_each_reason_what_the_program_says():
    page = on_page()
    assert page.pop(f"{JOIN}...") == ("normal", meaning(f"{JOIN}name-taken").text)
    assert page == {word: (each.kind.value, each.text) for word, each in MEANINGS.items()}


def test_the_alarming_come_first_and_of_a_kind_the_most():
    counts = {"replayed": 900, "spoofed": 2, "closed": 4, "auth": 7, "join-name-taken": 4, "join-bad-proof": 1}
    rows = drop_rows(counts)
    assert [row.reason for row in rows] == [
        "auth",
        "spoofed",
        "join-bad-proof",
        "replayed",
        "closed",
        "join-name-taken",
    ]
    assert [row.reason for row in of_kind(rows, DropKind.ALARMING)] == ["auth", "spoofed", "join-bad-proof"]
    assert sum(row.times for row in rows) == sum(counts.values())


def test_a_word_of_another_version_is_alarming():
    assert meaning("a-word-to-come").kind is DropKind.ALARMING


def test_a_refused_join_is_normal_unless_it_is_an_attack():
    alarming = {reason.value for reason in Reason if meaning(f"{JOIN}{reason}").kind is DropKind.ALARMING}
    assert alarming == {"bad-proof", "bad-signature", "malformed", "wrong-answer"}
    assert meaning(f"{JOIN}flood").kind is DropKind.ALARMING
