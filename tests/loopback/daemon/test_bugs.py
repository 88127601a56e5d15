"""An unexpected exception ends the daemon if it is ours, and is counted if it is a library's."""

import asyncio
import os
from collections import Counter
from types import SimpleNamespace

import pytest
from kit.raised import raised

from conflux import record
from conflux.carrier.ice.server import IceServer
from conflux.daemon.daemon import Daemon, is_ours
from conflux.daemon.ending import EXIT_BUG, EXIT_DEVICE_LOST, EXIT_DONE, Ending
from conflux.datapath.config import DatapathConfig
from conflux.datapath.native._engine import Engine
from conflux.host.systemd import Notifier


def call_a_closed_engine() -> None:
    """Call the engine after its end, as a link's task may that ends late."""
    engine = Engine(-1, False, DatapathConfig(), os.urandom)
    engine.close()
    engine.configure([], [])


OURS = raised(lambda: record.decode_untrusted(None, bytes_max=1))
OF_THE_CARRIER = raised(lambda: IceServer.parse(None, None, None))
OF_THE_ENGINE = raised(call_a_closed_engine)
OF_A_LIBRARY = raised(lambda: asyncio.run(None))


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (OURS, True),
        (OF_THE_CARRIER, False),
        (OF_THE_ENGINE, False),
        (OF_A_LIBRARY, False),
        (KeyError("never raised"), False),
    ],
    ids=[
        "raised in the package",
        "raised in the carrier",
        "raised in the engine",
        "raised in a library",
        "never raised",
    ],
)
def test_an_exception_is_ours_if_it_was_raised_in_the_package_outside_carrier_and_engine(error, ours):
    assert is_ours(error) is ours


def escaped(context: dict) -> tuple[Ending, Counter]:
    """Return how a daemon ends, and what it counts, after an exception escaped in a task or callback of its loop."""

    async def handle() -> tuple[Ending, Counter]:
        ending, drops = Ending(), Counter()
        daemon = Daemon(SimpleNamespace(pump=SimpleNamespace(drops=drops)), ending, Notifier({}))
        daemon._loop_exception(asyncio.get_running_loop(), context)
        return ending, drops

    return asyncio.run(handle())


def test_a_bug_of_ours_ends_the_daemon_with_an_exit_code_of_its_own(caplog):
    ending, drops = escaped({"message": "Task exception", "exception": OURS})
    assert ending.exit_code == EXIT_BUG
    assert ending.asked
    assert drops == {}
    assert "a bug ended the daemon" in caplog.text
    assert "Traceback" in caplog.text


def test_an_exception_of_a_library_is_counted_and_the_daemon_goes_on(caplog):
    ending, drops = escaped({"message": "Task exception", "exception": OF_A_LIBRARY})
    assert drops == {"library-exception": 1}
    assert not ending.asked
    assert "Task exception" in caplog.text


def test_a_complaint_of_the_loop_without_an_exception_is_counted_and_the_daemon_goes_on():
    ending, drops = escaped({"message": "Task was destroyed but it is pending!"})
    assert drops == {"library-exception": 1}
    assert not ending.asked


def test_the_first_bug_is_the_one_that_is_logged(caplog):
    ending = Ending()
    ending.fail(KeyError("first"))
    ending.fail(KeyError("second"))
    assert "first" in caplog.text
    assert "second" not in caplog.text


def test_stopping_twice_is_stopping_once(caplog):
    caplog.set_level("INFO", "conflux")
    ending = Ending()
    ending.stop()
    ending.stop()
    assert ending.exit_code == EXIT_DONE
    assert caplog.text.count("stopping") == 1


def test_a_lost_device_ends_the_daemon_with_an_exit_code_of_its_own(caplog):
    ending = Ending()
    ending.device_lost("conflux0 was removed")
    assert ending.exit_code == EXIT_DEVICE_LOST
    assert ending.asked
    assert "conflux0 was removed" in caplog.text
