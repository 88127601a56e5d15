"""The part of YAML that cloud-init files of Raspberry Pi Imager are written in.

Block mappings, block sequences, plain and quoted scalars on one line, lists in brackets, block texts, comments.  What
else YAML knows (anchors, tags, mappings in braces, several documents) is refused with its line: to guess would be to
read something else than was meant.  A library for all of YAML would be a dependency of the daemon for this alone.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

LINE_COUNT_MAX: Final = 2000
DEPTH_MAX: Final = 12

_KEY: Final = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s\-?:,\[\]{}#&*!|>'"%@`][^#]*?|-[^\s:]+):(?:\s+|$)"""
)
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}


class PlainYamlError(ValueError):
    """A line is not of the part of YAML that is read here.  line: from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line, self.text = line, text


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


class _Reader:
    def __init__(self, text: str) -> None:
        self._raw = text.split("\n")
        if len(self._raw) > LINE_COUNT_MAX:
            raise PlainYamlError(LINE_COUNT_MAX, f"more than {LINE_COUNT_MAX} lines")
        self._at = 0

    def peek(self) -> _Line | None:
        """Return the next line that says anything."""
        while self._at < len(self._raw):
            raw = self._raw[self._at]
            text = raw.strip()
            if text and not text.startswith("#") and not (text == "---" and self._at < 3):
                indent = len(raw) - len(raw.lstrip(" "))
                if raw[indent] == "\t":
                    raise PlainYamlError(self._at + 1, "indented with a tab")
                return _Line(self._at + 1, indent, text)
            self._at += 1
        return None

    def block(self, least: int, depth: int) -> Any:
        """Return the mapping, sequence or scalar whose lines are indented by at least so many spaces."""
        line = self.peek()
        if line is None or line.indent < least:
            return None
        if depth > DEPTH_MAX:
            raise PlainYamlError(line.number, "nested too deeply")
        if line.text == "-" or line.text.startswith("- "):
            return self._sequence(line.indent, depth)
        if _KEY.match(line.text):
            return self._mapping(line.indent, depth)
        self._at += 1
        return _scalar(line.text, line.number)

    def _sequence(self, indent: int, depth: int) -> list[Any]:
        found: list[Any] = []
        while (line := self.peek()) is not None and line.indent == indent and re.match(r"-(\s|$)", line.text):
            rest = line.text[1:].lstrip()
            inner = indent + len(line.text) - len(rest)
            if not rest or rest.startswith("#"):
                self._at += 1
                found.append(self.block(indent + 1, depth + 1))
            elif _KEY.match(rest) or rest.startswith("- "):
                self._raw[self._at] = " " * inner + rest  # what follows the dash is a block of its own
                found.append(self.block(inner, depth + 1))
            else:
                self._at += 1
                found.append(self._value(rest, indent, line.number))
        return found

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self.peek()) is not None and line.indent == indent:
            key = _KEY.match(line.text)
            if key is None:
                raise PlainYamlError(line.number, "a line that is no key with its value")
            name = str(_scalar(key["key"].strip(), line.number, is_key=True))
            if name in found:
                raise PlainYamlError(line.number, f"the key {name[:40]!r} for the second time")
            rest = line.text[key.end() :]
            self._at += 1
            if rest and not rest.startswith("#"):
                found[name] = self._value(rest, indent, line.number)
                continue
            after = self.peek()
            is_sequence = after is not None and after.indent == indent and re.match(r"-(\s|$)", after.text)
            found[name] = self.block(indent if is_sequence else indent + 1, depth + 1)
        if line is not None and line.indent > indent:
            raise PlainYamlError(line.number, "indented further than what is above it")
        return found

    def _value(self, text: str, indent: int, number: int) -> Any:
        if re.fullmatch(r"[|>][-+]?[0-9]?\s*(#.*)?", text):
            return self._text(indent, folded=text[0] == ">")
        return _scalar(text, number)

    def _text(self, indent: int, *, folded: bool) -> str:
        lines = []
        while self._at < len(self._raw):
            raw = self._raw[self._at]
            if raw.strip() and len(raw) - len(raw.lstrip(" ")) <= indent:
                break
            lines.append(raw.strip())
            self._at += 1
        return (" " if folded else "\n").join(lines).strip()


def parse(text: str) -> Any:
    """Return what a text says: dictionaries, lists, texts, numbers, True, False, None.  Raises PlainYamlError."""
    reader = _Reader(text)
    value = reader.block(0, 0)
    if (rest := reader.peek()) is not None:
        raise PlainYamlError(rest.number, "it belongs to nothing above it")
    return value


def _scalar(text: str, number: int, *, is_key: bool = False) -> Any:
    if text[0] in "&*!{%@`|>":
        raise PlainYamlError(number, f"{text[0]!r} is not of the part of YAML that is read here")
    if text[0] in "\"'":
        return _quoted(text, number)
    text = re.split(r"\s#", text, maxsplit=1)[0].strip()
    if is_key:
        return text
    if text.startswith("["):
        if not text.endswith("]"):
            raise PlainYamlError(number, "a list that does not end on its line")
        inside = text[1:-1].strip()
        return [_scalar(part.strip(), number) for part in inside.split(",") if part.strip()] if inside else []
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return int(text) if _INTEGER.fullmatch(text) else text


def _quoted(text: str, number: int) -> str:
    if text[0] == "'":
        found = re.match(r"'((?:[^']|'')*)'\s*(#.*)?$", text)
        if found is None:
            raise PlainYamlError(number, "a quote that is not closed on its line")
        return found[1].replace("''", "'")
    found = re.match(r'("(?:[^"\\]|\\.)*")\s*(#.*)?$', text)
    try:
        return str(json.loads(found[1])) if found is not None else _unclosed(number)
    except ValueError:
        raise PlainYamlError(number, "an escape that is not read here") from None


def _unclosed(number: int) -> str:
    raise PlainYamlError(number, "a quote that is not closed on its line")
