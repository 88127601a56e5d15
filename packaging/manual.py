"""The manual: conflux(8) from the grammar of the command line, conflux.toml(5) from docs/reference/configuration.md."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator

from commands import Command, commands, options, positionals

from conflux import __version__

FILES = (
    ("/etc/conflux/conflux.toml", "The configuration, see conflux.toml(5); every command reads it."),
    ("/var/lib/conflux", "Keys and credentials. Who holds root.key controls the network: keep a copy elsewhere."),
)
EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed; standard error says why in one line."),
    ("2", "Wrong usage."),
    ("130", "Ended by Ctrl-C."),
)


def escape(text: str) -> str:
    """Return text as roff takes it: no escape of its own, no request at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return re.sub(r"^(?=\.)", r"\\&", text, flags=re.MULTILINE)


def block(text: str) -> str:
    """Return lines that stay as they are."""
    return f".PP\n.nf\n.RS 4\n{escape(text.strip(chr(10)))}\n.RE\n.fi\n"


def title(name: str, section: int, date: str) -> str:
    """Return the head of a page; date: YYYY-MM-DD."""
    return f'.TH "{name.upper()}" {section} "{date}" "conflux {__version__}" "Conflux"\n'


# ── conflux(8) ───────────────────────────────────────────────────────────────────────────────────────────────────────


def conflux_8(top: argparse.ArgumentParser, date: str) -> str:
    """Return the page of all commands."""
    found = list(commands(top))
    common = set.intersection(*({action.dest for action in options(each.parser)} for each in found))
    description = " ".join((top.description or "").split())
    shared = [action for action in options(found[0].parser) if action.dest in common]
    return "".join(
        (
            title("conflux", 8, date),
            f".SH NAME\nconflux \\- {escape(description.split('.')[0].split(':')[0].removeprefix('An '))}\n",
            f".SH SYNOPSIS\n.B conflux\n.I COMMAND\n[{escape('options')}]\n",
            f".SH DESCRIPTION\n{escape(description)}\n",
            block(top.epilog or ""),
            ".SH OPTIONS OF EVERY COMMAND\n",
            *(item(action) for action in shared),
            ".SH COMMANDS\n",
            *(part for each in found for part in one(each, common)),
            ".SH EXIT STATUS\n",
            *(f".TP\n.B {code}\n{escape(text)}\n" for code, text in EXIT_STATUS),
            ".SH FILES\n",
            *(f".TP\n.I {escape(path)}\n{escape(text)}\n" for path, text in FILES),
            ".SH SEE ALSO\n.BR conflux.toml (5)\n",
        )
    )


def one(command: Command, common: set[str]) -> Iterator[str]:
    """Yield the section of a command, without the options that every command has."""
    usage = " ".join(command.parser.format_usage().removeprefix("usage: ").split())
    yield f".SS {escape(command.words)}\n"
    yield f"{escape(command.parser.description or command.text)}\n"
    yield block(usage.replace(f" {command.words} ", f"\n{command.words} "))
    for action in (*positionals(command.parser), *options(command.parser)):
        if action.dest not in common:
            yield item(action)
    if command.parser.epilog:
        yield block(command.parser.epilog)


def item(action: argparse.Action) -> str:
    """Return the entry of an argument or an option."""
    value = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    if not value and action.nargs != 0:
        value = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    names = ", ".join(f"\\fB{escape(each)}\\fR" for each in action.option_strings)
    shown = f"\\fI{escape(value)}\\fR" if value and action.nargs != 0 else ""
    text = escape((action.help or "").replace("%%", "%"))
    return f".TP\n{' '.join(filter(None, (names, shown)))}\n{text}\n"


# ── conflux.toml(5) ──────────────────────────────────────────────────────────────────────────────────────────────────


def conflux_toml_5(markdown: str, date: str) -> str:
    """Return the page of the configuration, from the page of the documentation."""
    head = f"{title('conflux.toml', 5, date)}.SH NAME\nconflux.toml \\- configuration of conflux(8)\n.SH DESCRIPTION\n"
    return head + "".join(pieces(iter(markdown.split("\n", 1)[1].split("\n"))))


def pieces(lines: Iterator[str]) -> Iterator[str]:
    """Yield the roff of each piece of a page in Markdown: headings, tables, blocks of code, lists, paragraphs."""
    for line in lines:
        if line.startswith("#"):
            marks, _, text = line.partition(" ")
            yield f".{'SH' if len(marks) == 2 else 'SS'} {inline(text)}\n"
        elif line.startswith("```"):
            code = []
            while not (each := next(lines)).startswith("```"):
                code.append(each)
            yield block("\n".join(code))
        elif line.startswith("|"):
            yield row(line)
        elif line.startswith("- "):
            yield f".IP \\(bu 2\n{inline(line[2:])}\n"
        elif line.strip():
            yield f"{inline(line.strip())}\n"
        else:
            yield ".PP\n"


def row(line: str) -> str:
    """Return a row of a table: its first cell is what the others are about."""
    cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
    if set("".join(cells)) <= set("-: ") or cells[0] in ("Key", "Word"):
        return ""
    first, *middle, last = cells
    aside = f" ({', '.join(map(inline, middle))})" if middle else ""
    return f".TP\n{inline(first)}{aside}\n{inline(last)}\n"


def inline(text: str) -> str:
    """Return a line of Markdown with its code and stress as roff has them, and its links as text."""
    text = escape(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text))
    text = re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\fB\1\\fR", text)


def pages(top: argparse.ArgumentParser, configuration: str, date: str) -> Iterable[tuple[str, str]]:
    """Return every page: its file's name, and its text."""
    return (("conflux.8", conflux_8(top, date)), ("conflux.toml.5", conflux_toml_5(configuration, date)))
