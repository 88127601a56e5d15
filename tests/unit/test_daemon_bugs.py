"""An exception nobody expected ends the daemon if it is ours, and is counted if it is a library's."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from conflux import daemon, wire
from conflux.config import Config
from conflux.daemon import Daemon


async def handled(error: BaseException) -> Daemon:
    """Return a daemon whose loop met error in a task of nobody's."""
    running = Daemon(Config(), None, None, None, None)
    running.pump = SimpleNamespace(drops=Counter())
    running._loop_exception(asyncio.get_running_loop(), {"message": "Task exception", "exception": error})
    return running


def raised(action) -> BaseException:
    try:
        action()
    except Exception as error:  # noqa: BLE001  # any will do
        return error
    raise AssertionError("nothing was raised")


def test_a_bug_of_ours_ends_the_daemon_with_a_code_of_its_own(caplog):
    running = asyncio.run(handled(raised(lambda: wire.decode_untrusted(None, bytes_max=1))))
    assert running._exit_code == daemon.EXIT_BUG
    assert running._stopped.is_set()
    assert "a bug ended the daemon" in caplog.text
    assert "Traceback" in caplog.text


def test_the_first_bug_is_the_one_that_is_told(caplog):
    async def twice() -> Daemon:
        running = Daemon(Config(), None, None, None, None)
        running.fail(KeyError("first"))
        running.fail(KeyError("second"))
        return running

    asyncio.run(twice())
    assert "first" in caplog.text
    assert "second" not in caplog.text


def test_a_library_that_fails_is_counted_and_the_daemon_goes_on(caplog):
    running = asyncio.run(handled(raised(lambda: Path("/nonexistent").read_text())))
    assert running.pump.drops == {"library-exception": 1}
    assert not running._stopped.is_set()
    assert running._exit_code == daemon.EXIT_DONE


def test_stopping_twice_is_stopping_once():
    async def twice() -> Daemon:
        running = Daemon(Config(), None, None, None, None)
        running.stop()
        running.stop()
        return running

    assert asyncio.run(twice())._exit_code == daemon.EXIT_DONE
