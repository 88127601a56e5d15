"""The command line: the list of its commands, and how an error is shown.

Each group of commands has its grammar in a module X_grammar beside this one, and others carry them out.  Grammars are
imported when they are needed: a command needs its own alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import MappingProxyType

from conflux import __version__
from conflux.cli import entry
from conflux.cli.entry import import_module
from conflux.cli.grammar import EXIT_USAGE, JSON_OPTION, Help, NoCommand, Parser, WrongUsage
from conflux.errors import ConfluxError, UsageError, UserError

TRACEBACK_VARIABLE = "CONFLUX_TRACEBACK"

DESCRIPTION = """\
An overlay network that keeps no tunnel up: a packet brings a link into being,
silence ends it."""

EXAMPLES = """\
a network of two boards on one LAN:
  first board    conflux realm create home
                 conflux up
                 conflux realm invite
  second board   conflux join cfx1...
                 conflux up
                 conflux ping first-board
"""

GRAMMARS = MappingProxyType(
    {
        "daemon": ("up", "down", "reload"),
        "status": ("status",),
        "look": ("ip", "hosts", "streams", "links", "paths", "watch", "usage"),
        "ping": ("ping", "why"),
        "route": ("route",),
        "page": ("top", "page"),
        "join": ("join", "leave"),
        "realm": ("realm",),
        "control": ("control",),
        "config": ("config",),
        "policy": ("policy",),
        "doctor": ("doctor", "report"),
        "bench": ("bench",),
        "sdcard": ("sdcard",),
        "update": ("update",),
        "board": ("board",),
        "help": ("help", "version"),
    }
)
"""Every command, by its group, in the order of the help: add_X() of conflux.cli.X_grammar adds those of group X."""

FORMER = MappingProxyType({"routes": "paths"})


def parser(first: str | None = None) -> Parser:
    """Return the grammar of every command, or of first alone and of its group, if that is a command."""
    top = Parser(prog="conflux", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=Help)
    top.add_argument("--version", action="version", version=f"conflux {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    top.former = FORMER
    groups = [group for group, names in GRAMMARS.items() if first in names]
    for group in groups or GRAMMARS:
        getattr(import_module(f"conflux.cli.{group}_grammar"), f"add_{group}")(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 for done, 1 for failed, 2 for wrong usage.  None: the process's."""
    return entry.main() if arguments is None else entry.end_output(run(arguments))


def run(arguments: Sequence[str] | None) -> int:
    """Run one command and return the exit code.  None: the process's.  Raises SystemExit after help."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser(words[0] if words else None).parse_args(words)
        module, _, function = options.run.partition(":")
        if sys.maxsize < 2**63 - 1:  # setup.py refuses it too, but a copied virtual environment never ran that
            raise UserError("this Python is a 32-bit one, and Conflux needs a 64-bit system")
        # The import comes this late so that `conflux status` does not load WebRTC.
        command = getattr(import_module(f"conflux.cli.{module}"), function)
        return int(command(options))
    except NoCommand as none:
        sys.stdout.write(none.listed)
        return EXIT_USAGE
    except WrongUsage as wrong:
        _say(words, wrong.text, wrong.by)
        return EXIT_USAGE
    except BrokenPipeError:  # of standard output, as a rule: see end_output()
        return entry.EXIT_FAILED
    except KeyboardInterrupt:
        return entry.EXIT_INTERRUPTED
    except UsageError as error:
        _say(words, str(error))
        return EXIT_USAGE
    except ConfluxError as error:
        _say(words, str(error))
    except OSError as error:
        _say(words, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _say(words, f"a bug: {said} ({TRACEBACK_VARIABLE}=1 shows where)")
    return entry.EXIT_FAILED


def _say(words: Sequence[str], text: str, by: str = "conflux") -> None:
    """Print an error for a person and, where a program asked for JSON, for that too."""
    entry.complain(text, by)
    # As argparse has it, an option may be cut short where no other begins so.
    if any(len(word) > 2 and JSON_OPTION.startswith(word) for word in words):
        import json

        from conflux.api import scheme
        from conflux.api.failure import Failure

        sys.stdout.write(json.dumps(scheme.answer(Failure(text))) + "\n")
