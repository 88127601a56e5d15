"""The daemon's Unix socket: which requests and users it takes, and what a watcher gets."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflux.api import client as client_module
from conflux.api import server
from conflux.api.client import ApiClient, HangsError, NotRunning
from conflux.api.server import ApiServer, Argument, Operation, parse_untrusted
from conflux.errors import StateError, UserError
from conflux.node.event import EventKind
from conflux.shell import feed
from conflux.shell.feed import EventRow, EventsLost, Feed


async def echo(arguments):
    return dict(arguments)


async def broken(arguments):
    raise KeyError("a bug")


async def refusing(arguments):
    raise UserError("no node is named 'x'")


async def counting(arguments):
    for number in range(arguments["count"]):
        yield {"number": number}


async def looking(arguments):
    return "seen"


async def watching(arguments):
    yield "begun"
    await asyncio.Event().wait()


async def endless(arguments):
    await asyncio.Event().wait()
    yield None


OPERATIONS = {
    "echo": Operation(
        call=echo,
        arguments={
            "name": Argument(str, required=True, least=1, most=8),
            "count": Argument(int, default=4, least=1, most=9),
            "wait": Argument(float, default=1.0, least=0.5, most=2),
            "all": Argument(bool, default=False),
        },
    ),
    "broken": Operation(call=broken),
    "refusing": Operation(call=refusing),
    "counting": Operation(stream=counting, arguments={"count": Argument(int, default=3, most=10**6)}),
    "endless": Operation(stream=endless),
    "looking": Operation(call=looking, looks=True),
    "watching": Operation(stream=watching, looks=True),
}


@contextlib.asynccontextmanager
async def serving(path, failures=None, drops=None, group=None):
    failed = (failures if failures is not None else []).append
    server = ApiServer(path, OPERATIONS, failed, drops if drops is not None else Counter(), group=group)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def served(path, talk, failures=None, drops=None, group=None):
    """Run talk(), which blocks as the command line does, in a thread beside the server, and return its result."""

    async def run():
        async with serving(path, failures, drops, group):
            return await asyncio.to_thread(talk)

    return asyncio.run(run())


def raw(path, data):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(data)
        if data:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


async def until(true):
    """Let the loop run until true() holds; the limit of the test run ends a wait in vain."""
    turn = asyncio.get_running_loop().create_future
    while not true():
        future = turn()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future


@pytest.fixture
def path(tmp_path):
    return tmp_path / "conflux.sock"


def test_a_request_gets_its_answer_with_defaults_filled_in(path):
    got = served(path, lambda: ApiClient(path).call("echo", name="x", wait=2))
    assert got == {"name": "x", "count": 4, "wait": 2.0, "all": False}


def test_a_stream_yields_items_and_ends(path):
    assert served(path, lambda: list(ApiClient(path).stream("counting"))) == [{"number": n} for n in range(3)]


def test_a_refusal_arrives_as_the_text_for_a_person(path):
    with pytest.raises(UserError, match=r"^no node is named 'x'$"):
        served(path, lambda: ApiClient(path).call("refusing"))


def test_a_bug_is_told_to_the_daemon_and_not_to_the_client(path):
    failures = []
    with pytest.raises(UserError, match="its log says how"):
        served(path, lambda: ApiClient(path).call("broken"), failures)
    assert [repr(failure) for failure in failures] == ["KeyError('a bug')"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 50000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "unknown request 'None'"),
        (b'{"do":["echo"]}', "unknown request"),
        (b'{"do":"shutdown"}', "unknown request 'shutdown'; known: broken, counting"),
        (b'{"do":"echo"}', "echo: name is missing"),
        (b'{"do":"echo","nam":"x"}', "echo: unknown argument 'nam'"),
        (b'{"do":"echo","name":7}', "echo: name must be a text"),
        (b'{"do":"echo","name":null}', "echo: name must be a text"),
        (b'{"do":"echo","name":"123456789"}', "name must be a text of 1 to 8 characters"),
        (b'{"do":"echo","name":"x","count":true}', "count must be a whole number"),
        (b'{"do":"echo","name":"x","count":10}', "count must be a whole number of 1 to 9"),
        (b'{"do":"echo","name":"x","wait":NaN}', "wait must be a number of 0.5 to 2"),
        (b'{"do":"echo","name":"x","wait":1' + b"0" * 400 + b"}", "wait must be a number of 0.5 to 2"),
        (b'{"do":"echo","name":"x","all":1}', "all must be true or false"),
    ],
)
def test_a_malformed_request_is_refused_by_name(line, words):
    with pytest.raises(UserError) as caught:
        parse_untrusted(line, OPERATIONS)
    assert words in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["do", "name", "count", "x"]), inner),
    )
)
def test_any_json_is_an_operation_or_a_user_error(value):
    with contextlib.suppress(UserError):
        parse_untrusted(json.dumps(value).encode(), OPERATIONS)


def test_a_request_above_the_bound_is_refused_and_the_server_lives(path):
    def talk():
        assert b"larger than 65536 bytes" in raw(path, b" " * (server.REQUEST_BYTES_MAX + 1024))
        return ApiClient(path).call("echo", name="x")

    assert served(path, talk)["name"] == "x"


def test_a_client_that_sends_nothing_is_refused_after_a_while(path, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", 0.05)
    assert b"no request within" in served(path, lambda: raw(path, b""))


def test_more_clients_than_the_bound_are_refused(path, monkeypatch):
    monkeypatch.setattr(server, "CLIENT_COUNT_MAX", 1)

    def talk():
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            first.sendall(b'{"do":"endless"}\n')
            return raw(path, b'{"do":"echo","name":"x"}\n')

    assert b"more than 1 clients" in served(path, talk)


def test_a_client_of_another_user_is_refused_and_counted(path, monkeypatch):
    monkeypatch.setattr(server, "_peer", lambda connection: (os.geteuid() + 1, frozenset({7})))
    drops = Counter()
    with pytest.raises(UserError, match="only root, the user"):
        served(path, lambda: ApiClient(path).call("echo", name="x"), drops=drops)
    assert drops == {"api-refused": 1}


def test_the_kernel_says_which_user_connected_and_its_groups():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert server._peer(ours) == (os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def test_who_is_in_the_group_may_look_and_change_nothing(path, monkeypatch):
    monkeypatch.setattr(server, "_peer", lambda connection: (os.geteuid() + 1, frozenset({7})))
    drops = Counter()

    def talk():
        assert ApiClient(path).call("looking") == "seen"
        with pytest.raises(UserError, match="you may look at this node and not change it"):
            ApiClient(path).call("echo", name="x")

    served(path, talk, drops=drops, group=7)
    assert drops == {"api-refused": 1}


def test_who_may_only_look_cannot_keep_the_owner_out(path, monkeypatch):
    monkeypatch.setattr(server, "LOOKER_COUNT_MAX", 1)
    peers = iter([(os.geteuid() + 1, frozenset({7}))] * 2 + [(os.geteuid(), frozenset())])
    monkeypatch.setattr(server, "_peer", lambda connection: next(peers))

    def talk():
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            first.sendall(b'{"do":"watching"}\n')
            assert first.recv(1024) == b'{"item":"begun"}\n'
            assert b"more than 1 clients at once that may only look" in raw(path, b'{"do":"looking"}\n')
            return ApiClient(path).call("echo", name="x")["name"]

    assert served(path, talk, group=7) == "x"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_refused_clients_that_stay_take_no_place_and_few_descriptors(path, monkeypatch):
    """Whoever is not admitted is one kind: no number of them keeps the owner out, or the daemon's files open."""
    looker, owner = (os.geteuid() + 1, frozenset({7})), (os.geteuid(), frozenset())
    stranger = (os.geteuid() + 1, frozenset())
    who = [looker]
    monkeypatch.setattr(server, "_peer", lambda connection: who[0])
    monkeypatch.setattr(server, "REFUSED_TIMEOUT_S", 60.0)

    def stay(stack, request=b""):
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(10)
        connection.connect(str(path))
        if request:  # one that is closed at once takes none
            connection.sendall(request)
        return connection.recv(1024)

    def talk():
        with contextlib.ExitStack() as stack:
            for _ in range(server.LOOKER_COUNT_MAX):
                assert stay(stack, b'{"do":"watching"}\n') == b'{"item":"begun"}\n'
            before = descriptors()
            told = [stay(stack) for _ in range(9)]
            who[0] = stranger
            told += [stay(stack) for _ in range(31)]
            assert len([text for text in told if text]) == server.REFUSED_COUNT_MAX
            assert descriptors() - before == 40 + server.REFUSED_COUNT_MAX, "the ends of this test, and the server's"
            who[0] = owner
            for _ in range(server.CLIENT_COUNT_MAX - server.LOOKER_COUNT_MAX - 1):
                assert stay(stack, b'{"do":"watching"}\n') == b'{"item":"begun"}\n'
            return ApiClient(path).call("echo", name="x")["name"]

    assert served(path, talk, group=7) == "x"


def test_who_may_only_look_has_a_ration_and_the_owner_has_none(path, monkeypatch):
    monkeypatch.setattr(server, "LOOKS_PER_S", 1e-9)
    monkeypatch.setattr(server, "LOOKS_BURST", 2.0)
    peers = iter([(os.geteuid() + 1, frozenset({7}))] * 3 + [(os.geteuid(), frozenset())])
    monkeypatch.setattr(server, "_peer", lambda connection: next(peers))

    def talk():
        assert [ApiClient(path).call("looking") for _ in range(2)] == ["seen"] * 2
        assert b"requests a second of users who may only look" in raw(path, b'{"do":"looking"}\n')
        return ApiClient(path).call("looking")

    assert served(path, talk, group=7) == "seen"


def test_a_link_in_the_place_of_the_socket_changes_no_other_file(path, monkeypatch):
    """Whatever is done to the socket by its name is done to that name alone: os.chown here, and there is no chmod."""
    other = path.with_name("other")
    other.write_text("precious")
    other.chmod(0o600)
    chowns = []
    chown = os.chown

    def swapped(name, uid, gid, **options):
        path.unlink()
        path.symlink_to(other)
        chowns.append(options)
        chown(name, uid, gid, **options)

    monkeypatch.setattr(os, "chown", swapped)
    server._listener(path, os.getegid()).close()
    assert chowns == [{"follow_symlinks": False}]
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_a_folder_whose_files_every_user_may_replace_is_refused(path):
    path.parent.chmod(0o777)
    with pytest.raises(StateError, match="every user may replace files in"):
        served(path, lambda: None)
    path.parent.chmod(0o1777)
    assert served(path, lambda: "served") == "served"


def test_a_daemon_that_hangs_with_a_full_queue_holds_no_other_up(path):
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as queued:
        hung.bind(str(path))
        hung.listen(0)
        queued.connect(str(path))
        with pytest.raises(StateError, match="another daemon listens"):
            served(path, lambda: None)
        assert path.exists()


def test_the_socket_is_the_groups_if_there_is_one(path):
    def seen():
        status = path.stat()
        return stat.S_IMODE(status.st_mode), status.st_gid

    assert served(path, seen, group=os.getegid()) == (0o660, os.getegid())


def test_the_socket_is_for_its_owner_only_and_is_removed_at_the_end(path):
    assert served(path, lambda: stat.S_IMODE(path.stat().st_mode)) == 0o600
    assert not path.exists()


def test_the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_running_one_is_not(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def run():
        async with serving(path):
            with pytest.raises(StateError, match="another daemon listens"):
                async with serving(path):
                    pass

    asyncio.run(run())


def test_a_file_in_the_way_is_left_alone(path):
    path.write_text("precious")
    with pytest.raises(StateError, match="is not a socket"):
        served(path, lambda: None)
    assert path.read_text() == "precious"


def test_a_path_the_kernel_does_not_take_is_refused(tmp_path):
    with pytest.raises(StateError, match="AF_UNIX path too long"):
        served(tmp_path / (120 * "x"), lambda: None)


def test_without_a_daemon_the_client_says_so(path):
    with pytest.raises(NotRunning, match="start it with `conflux up`"):
        ApiClient(path).call("echo", name="x")


def test_waiting_for_the_end_returns_when_the_daemon_ends(path):
    async def run():
        async with serving(path) as server:
            waiting = asyncio.ensure_future(asyncio.to_thread(ApiClient(path).call_to_end, "endless", 10))
            await until(lambda: server._clients)
        await waiting

    asyncio.run(run())


@pytest.mark.parametrize("ask", ["look", "stream", "end", "call"])
def test_a_daemon_that_hangs_is_told_soon_and_by_its_pid(path, monkeypatch, ask):
    monkeypatch.setattr(client_module, "LOOK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.1)
    asks = {
        "call": lambda client: client.call("echo", name="x"),
        "look": lambda client: client.look("status"),
        "stream": lambda client: next(client.stream("watch")),
        "end": lambda client: client.call_to_end("down", 30),
    }
    with socket.socket(socket.AF_UNIX) as listener:  # it takes connections, and nobody reads them, as after SIGSTOP
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(HangsError, match=rf"the daemon \(pid {os.getpid()}\) has not answered for 0.2 seconds"):
            asks[ask](ApiClient(path))


def test_what_takes_long_is_waited_for_while_the_daemon_answers_anything_else(path, monkeypatch):
    monkeypatch.setattr(client_module, "LOOK_TIMEOUT_S", 5.0)
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.05)
    asked = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer():
            slow, _ = listener.accept()
            quick, _ = listener.accept()  # it comes as the first question has no answer yet
            asked.extend(json.loads(connection.recv(1024))["do"] for connection in (slow, quick))
            for connection, said in ((quick, 1), (slow, 2)):
                connection.sendall(json.dumps({"done": said}).encode() + b"\n")
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert ApiClient(path).call("move", name="x") == 2
        thread.join()
    assert asked == ["move", client_module.LOOK]


def test_a_daemon_whose_clients_queue_up_is_told_too(path, monkeypatch):
    monkeypatch.setattr(client_module, "LOOK_TIMEOUT_S", 0.2)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(HangsError, match="takes no clients any more"):
            ApiClient(path).look("status")


def test_an_answer_that_breaks_the_protocol_is_refused(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"hello\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError, match="makes no sense"):
            ApiClient(path).call("echo", name="x")
        thread.join()


def event(number: int) -> EventRow:
    return EventRow(EventKind.LINK, float(number), "sensor", "", None, (), None, None, None)


def test_a_slow_watcher_loses_events_and_is_told_how_many(monkeypatch):
    monkeypatch.setattr(feed, "BUFFER_COUNT_MAX", 3)

    async def run():
        events = Feed()
        watcher = events.watch()
        first = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        for number in range(6):
            events.publish(event(number))
        got = [await first] + [await anext(watcher) for _ in range(3)]
        await watcher.aclose()  # type: ignore[attr-defined]
        assert events.watcher_count == 0
        return got

    got = asyncio.run(run())
    assert got == [event(0), event(1), event(2), EventsLost(3)]


def test_a_watcher_that_hangs_up_is_forgotten(path):
    events = Feed()

    async def run():
        server = ApiServer(path, {"watch": Operation(stream=lambda arguments: events.watch())}, print, Counter())
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"do":"watch"}\n')
        await until(lambda: events.watcher_count)
        events.publish(event(7))
        assert json.loads(await reader.readline())["item"]["at"] == 7.0
        writer.close()
        await until(lambda: not events.watcher_count)
        await server.stop()

    asyncio.run(asyncio.wait_for(run(), 10))
