"""What the users of a realm may do on a real NATS server: exactly what the templates say."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from kit.broker import Operator, connect, port_of, running, servers
from kit.builders import make_credential, make_realm, node_keys

from conflux.broker.client import Client, Login, ServerError
from conflux.crypto.nkey import KeyPair, Kind, sign_nonce
from conflux.realm.broker import subjects
from conflux.realm.broker.jwt import LEAF_NODE, Permissions, UserJwt
from conflux.realm.broker.users import PAYLOAD_BYTES_MAX, join_key, late_jwt_of, member_permissions, renewal_id
from conflux.realm.credential import BRIDGE, ISSUER

INVITE, SECRET = b"invite78", b"s" * 16
AREA = "main"


class Broker(NamedTuple):
    """A running server, and who makes its users."""

    port: int
    operator: Operator

    def jwt(self, key: KeyPair, *capabilities: str, **others: object) -> str:
        """Return the JWT of a member that is asked for in bucket 7."""
        now_unix = int(time.time())
        told = UserJwt(
            key.public,
            self.operator.account.public,
            now_unix,
            now_unix + 60,
            member_permissions(key.public, (7,), capabilities),
            64,
            PAYLOAD_BYTES_MAX,
        )
        return type(told)(**{name: others.get(name, getattr(told, name)) for name in told.__slots__}).encode(
            self.operator.signing
        )

    def member(self, key: KeyPair, *capabilities: str) -> Client:
        """Return the connection of a member."""
        return connect(self.port, self.jwt(key, *capabilities), key)

    def joiner(self) -> Client:
        """Return the connection of a node that only has an invitation."""
        now_unix = int(time.time())
        made = self.operator.signer.join_pass(INVITE, SECRET, issued_at=now_unix, expires_at=now_unix + 60)
        return connect(self.port, *made.rebuild(INVITE, SECRET))

    def late(self) -> Client:
        """Return the connection of a member whose credential ended yesterday, by the pass in it."""
        ended_at = int(time.time()) - 86400
        plain = make_credential(make_realm(), "bob", not_before=ended_at - 86400, not_after=ended_at)
        jwt = late_jwt_of(self.operator.signer.mint(plain))
        assert jwt is not None
        return Client.open("127.0.0.1", self.port, Login(jwt, lambda nonce: sign_nonce(BOB.signing, nonce)))


@pytest.fixture(scope="module", params=servers())
def broker(request, tmp_path_factory) -> Iterator[Broker]:
    operator = Operator()
    with running(request.param, tmp_path_factory.mktemp("broker"), operator.config()) as ports:
        yield Broker(port_of(ports), operator)


ME, YOU, THIRD = (KeyPair.generate(Kind.USER) for _ in range(3))
BOB = node_keys("bob")  # whose credential has ended
LATE = renewal_id(BOB.public.encode()[:32])
SAYS = {  # who may publish
    subjects.presence(AREA, ME.public): {"member", "issuer", "bridge"},
    subjects.presence("other", ME.public): {"member", "issuer", "bridge"},
    subjects.presence(subjects.EVERY_AREA, ME.public): {"member", "issuer", "bridge"},
    subjects.question(7, ME.public): {"member", "issuer", "bridge"},
    subjects.question(4095, ME.public): {"member", "issuer", "bridge"},
    subjects.question(7, ME.public, again=True): {"member", "issuer", "bridge"},
    subjects.message(YOU.public, ME.public): {"member", "issuer", "bridge"},
    subjects.message(YOU.public, ME.public, again=True): {"member", "issuer", "bridge"},
    subjects.joined(INVITE): {"issuer"},
    subjects.joined(LATE): {"issuer"},
    subjects.auth("lists"): {"issuer"},
    subjects.join(INVITE): {"joiner"},
    subjects.join(LATE): {"late"},
    subjects.presence(AREA, YOU.public): set(),
    subjects.question(7, YOU.public): set(),
    subjects.question(7, YOU.public, again=True): set(),
    subjects.message(ME.public, YOU.public): set(),
    subjects.message(ME.public, YOU.public, again=True): set(),
    subjects.message(YOU.public, THIRD.public): set(),
    subjects.join(b"invite79"): set(),
    "cx.u.x": set(),
    "cx.other": set(),
    "_INBOX.x": set(),
    "$SYS.REQ.USER.INFO": set(),
    "$SYS.REQ.SERVER.PING": set(),
    "$JS.API.INFO": set(),
    "hello": set(),
}
HEARS = {  # who may listen
    subjects.messages(ME.public): {"member", "issuer", "bridge"},
    subjects.message(ME.public, YOU.public): {"member", "issuer", "bridge"},
    subjects.presences(AREA): {"member", "issuer", "bridge"},
    subjects.presences("other"): {"member", "issuer", "bridge"},
    subjects.auth("lists"): {"member", "issuer", "bridge"},
    subjects.questions(7): {"member", "issuer", "bridge"},
    subjects.questions(7, again=True): {"member", "issuer", "bridge"},
    subjects.messages_of(ME.public, subjects.AGAIN): {"member", "issuer", "bridge"},
    subjects.presences(subjects.EVERY_AREA): {"member", "issuer", "bridge"},
    subjects.questions(8): {"bridge"},
    subjects.questions(8, again=True): {"bridge"},
    subjects.ANY_QUESTION: {"bridge"},
    subjects.ANY_JOIN: {"issuer"},
    subjects.join(INVITE): {"issuer"},
    subjects.join(LATE): {"issuer"},
    subjects.joined(INVITE): {"joiner"},
    subjects.joined(LATE): {"late"},
    subjects.joined(b"invite79"): set(),
    subjects.messages(YOU.public): set(),
    "cx.u.*.>": set(),
    "cx.u.>": set(),
    subjects.EVERYTHING: set(),
    ">": set(),
    "*.*.*": set(),
    "_INBOX.>": set(),
    "$SYS.>": set(),
}


def is_permitted(client: Client, *, subscribe: str = "", publish: str = "") -> bool:
    """Say whether the server lets a user do that."""
    if subscribe:
        client.subscribe(subscribe)
    else:
        client.publish(publish, b"x")
    try:
        client.flush()
    except ServerError as error:
        if not error.said.startswith("Permissions Violation"):
            raise
        client.flush()  # the PONG after it
        return False
    return True


@pytest.mark.parametrize("role", ["member", "issuer", "bridge", "joiner", "late"])
def test_a_role_may_do_what_its_template_says_and_nothing_else(broker, role):
    capabilities = {"issuer": (ISSUER,), "bridge": (BRIDGE,)}.get(role, ())
    own = {"joiner": broker.joiner, "late": broker.late}.get(role, lambda: broker.member(ME, *capabilities))
    with own() as client:
        says = {subject for subject in SAYS if is_permitted(client, publish=subject)}
        hears = {subject for subject in HEARS if is_permitted(client, subscribe=subject)}
    assert says == {subject for subject, roles in SAYS.items() if role in roles}
    assert hears == {subject for subject, roles in HEARS.items() if role in roles}


def test_every_role_is_tried_for_every_subject():
    roles = set(itertools.chain(*SAYS.values(), *HEARS.values()))
    assert roles == {"member", "issuer", "bridge", "joiner", "late"}


def test_what_one_member_sends_another_gets_and_no_third(broker):
    with ExitStack() as stack:
        me, you, third = (stack.enter_context(broker.member(key)) for key in (ME, YOU, THIRD))
        for client, key in ((me, ME), (you, YOU), (third, THIRD)):
            client.subscribe(subjects.messages(key.public))
            client.flush()
        reply = subjects.no_responders(ME.public, YOU.public)
        me.publish(subjects.message(YOU.public, ME.public), b"hello", reply)
        me.flush()
        arrived = next(you.receive())
        assert (arrived.subject, arrived.payload) == (subjects.message(YOU.public, ME.public), b"hello")
        assert third.flush() == []


def test_the_server_says_at_once_that_a_member_is_not_there(broker):
    with broker.member(ME) as client:
        client.subscribe(subjects.messages(ME.public))
        reply = subjects.no_responders(ME.public, YOU.public)
        client.publish(subjects.message(YOU.public, ME.public), b"hello", reply)
        arrived = client.flush()
    assert [(message.subject, message.status) for message in arrived] == [(reply, 503)]


def test_the_largest_payload_passes_and_a_larger_one_ends_the_connection(broker):
    with broker.member(ME) as client:
        client.subscribe(subjects.messages(ME.public))
        client.publish(subjects.message(ME.public, ME.public), bytes(PAYLOAD_BYTES_MAX))
        assert [len(message.payload) for message in client.flush()] == [PAYLOAD_BYTES_MAX]
        client.publish(subjects.message(ME.public, ME.public), bytes(PAYLOAD_BYTES_MAX + 1))
        with pytest.raises((ServerError, OSError)):
            client.flush()


def test_more_subscriptions_than_permitted_are_refused(broker):
    with broker.member(ME) as client:
        for _ in range(64):
            client.subscribe(subjects.presences(AREA))
        client.flush()
        client.subscribe(subjects.presences(AREA))
        with pytest.raises(ServerError, match=r"(?i)maximum subscriptions exceeded"):
            client.flush()


def refused(broker: Broker, jwt: str, key: KeyPair) -> None:
    with pytest.raises(ServerError, match=r"(?i)authorization violation"):
        connect(broker.port, jwt, key)


def test_a_stolen_jwt_is_of_no_use_without_its_key(broker):
    refused(broker, broker.jwt(ME), YOU)


def test_a_jwt_of_a_signer_that_the_account_does_not_list_is_refused(broker):
    stranger = Broker(broker.port, Operator(account=broker.operator.account))
    refused(broker, stranger.jwt(ME), ME)


def test_a_jwt_of_another_account_is_refused(broker):
    refused(broker, Broker(broker.port, Operator()).jwt(ME), ME)


def test_a_jwt_that_ended_is_refused(broker):
    refused(broker, broker.jwt(ME, issued_at=int(time.time()) - 60, expires_at=int(time.time()) - 2), ME)


def test_the_jwt_of_a_leaf_is_refused_from_a_client(broker):
    refused(broker, broker.jwt(ME, connects_as=LEAF_NODE), ME)


def test_a_user_that_names_no_permission_may_do_nothing(broker, monkeypatch):
    # For a server an empty list of what is allowed allows everything, hence the account's default: to deny.
    monkeypatch.setattr(UserJwt, "_fault", lambda self: None)
    text = broker.jwt(ME, permissions=Permissions((), ()))
    with connect(broker.port, text, ME) as client:
        says = {subject for subject in SAYS if is_permitted(client, publish=subject)}
        hears = {subject for subject in HEARS if is_permitted(client, subscribe=subject)}
    assert says | hears == set()


def test_a_connection_ends_when_its_jwt_does(broker):
    now_unix = int(time.time())
    jwt = broker.jwt(ME, issued_at=now_unix - 10, expires_at=now_unix + 2)
    with connect(broker.port, jwt, ME) as client, pytest.raises(ServerError, match=r"(?i)expired"):
        list(client.receive(5.0))


def test_a_revoked_user_is_refused_and_a_jwt_of_later_is_not(broker, request, tmp_path):
    now_unix = int(time.time())
    joiner = join_key(INVITE, SECRET)
    operator = Operator(revoked={ME.public: now_unix - 10, joiner.public: now_unix})
    binary = request.node.callspec.params["broker"]
    with running(binary, tmp_path, operator.config()) as ports:
        other = Broker(port_of(ports), operator)
        refused(other, other.jwt(ME, issued_at=now_unix - 10), ME)
        connect(other.port, other.jwt(ME, issued_at=now_unix - 9), ME).close()
        connect(other.port, other.jwt(YOU, issued_at=now_unix - 100), YOU).close()
