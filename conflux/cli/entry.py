"""Where the process of a command begins and ends: its descriptors, Ctrl-C at any moment, and the end of its output.

It imports next to nothing, so that what is imported later is imported under its care.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import io
import os
import signal
import sys

TYPE_CHECKING = False  # typing takes longer to import than all that this module does
if TYPE_CHECKING:
    from types import ModuleType
    from typing import TextIO

TOKEN = "cfx1"  # noqa: S105  # what an invitation begins with
# So many more objects than were freed have to be made before Python looks for rings of dead ones.  Those that a command
# makes while it starts live on, and looks through them would take it a sixth of its time.
OBJECT_COUNT = 50_000
_USUAL = gc.get_threshold()
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def import_module(name: str) -> ModuleType:
    """Import a module, as importlib does, which itself would have to be imported."""
    __import__(name)
    return sys.modules[name]


def main() -> int:
    """Run the command of this process, and return its exit code."""
    try:
        gc.set_threshold(OBJECT_COUNT)
        sys.unraisablehook = raise_later
        open_missing()
        print_anything()
        hide_tokens()
        code = int(import_module("conflux.cli.parser").run(None))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except SystemExit as ended:  # argparse, after --help or a wrong option
        code = ended.code if isinstance(ended.code, int) else EXIT_FAILED
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # from here on, Ctrl-C ends the process without a word
    return end_output(code)


def lives_long() -> None:
    """Have Python look for dead objects as often as it does of itself: this command goes on."""
    gc.set_threshold(*_USUAL)


def raise_later(lost: sys.UnraisableHookArgs) -> None:
    """Have a Ctrl-C that came where nothing can be raised, as in a callback of an import, come a moment later.

    Python would print a traceback, and the command go on.  A real signal, or what waits in a system call waits on.
    """
    if lost.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(signal.pthread_kill, (_thread.get_ident(), signal.SIGINT))
    else:
        sys.__unraisablehook__(lost)


def open_missing() -> None:
    """Put /dev/null on standard descriptors that are closed: else a socket would get their numbers, and our words."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))


def print_anything() -> None:
    """Have standard output show as \\udcff or the like what its encoding lacks, such as bytes in the name of a file."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def hide_tokens() -> None:
    """Overwrite invitations among the arguments, which all users of the host see, before anything takes its time."""
    for word in sys.argv[1:]:
        if TOKEN in word:
            from conflux.host.arguments import hide

            hide(word[word.index(TOKEN) :])


def end_output(code: int) -> int:
    """Write out what was printed; return the exit code, which says so if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            # The reader of our output is gone (`conflux watch | head`), so there is no one to tell.
            code = code or EXIT_FAILED
            _discard(stream)
        except OSError as error:
            code = code or EXIT_FAILED
            _discard(stream)
            if stream is sys.stdout:
                complain(f"standard output: {error.strerror or error}")
    return code


def complain(text: str, by: str = "conflux") -> None:
    """Print an error of a command on standard error, as one line; where that does not take it, nobody reads it.

    What is not printable is escaped: a file's name may have a new line in it, or commands for a terminal.
    """
    from conflux.errors import printable

    with contextlib.suppress(OSError):
        sys.stderr.write(f"{by}: {printable(text)}\n")
        sys.stderr.flush()


def _discard(stream: TextIO) -> None:
    """Have what is left go nowhere: the interpreter would try to write it once more, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
