"""The handshake of two neighbours: each proves its identity on this connection, and on no other."""

from __future__ import annotations

import dataclasses
import os

import pytest
from kit.builders import NOW_UNIX, make_member, make_realm
from kit.control import boot_id

from conflux.control.lan.handshake import Acceptor, Dialler, Hello, Ourselves, Welcome, realm_tag
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain

CERTIFICATE = b"c" * 32


def ourselves(name: str, realm: str = "home") -> Ourselves:
    member = make_member(make_realm(realm), name)
    seed = name.encode().ljust(8, b".")
    return Ourselves(member, boot_id(1), seed, lambda chain: chain.verify(member.anchor, now_unix=NOW_UNIX))


def test_handshake_tells_both_sides_the_same_connection_and_each_the_other() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    dialled_by, welcome = acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))
    accepted_by = dialler.finish_untrusted(welcome)
    assert (dialled_by.name, dialled_by.node) == ("bob", make_member(make_realm(), "bob").node_id)
    assert (accepted_by.name, accepted_by.instance) == ("alice", ourselves("alice").instance)
    assert (dialled_by.name, dialled_by.instance) == ("bob", ourselves("bob").instance)
    assert dialled_by.session == accepted_by.session


def test_instance_belongs_to_one_node_and_boot_whatever_is_claimed() -> None:
    """Whoever knows all that bob ever says of his announcement cannot make it his own."""
    bob, mallory = ourselves("bob"), ourselves("mallory")
    for seed in (bob.seed, bob.instance):
        acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
        dialler = Dialler(mallory._replace(seed=seed), CERTIFICATE, os.urandom)
        peer, _ = acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))
        assert peer.instance != bob.instance
    assert bob._replace(boot=boot_id(2)).instance != bob.instance
    assert bob._replace(seed=os.urandom(8)).instance != bob.instance
    assert bob.instance not in (bob.seed, bob.member.node_id[:8])


def test_every_changed_field_of_hello_and_welcome_is_refused() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    hello = Hello.decode_untrusted(dialler.hello_untrusted(acceptor.greeting))
    _, data = acceptor.answer_untrusted(hello.encode())
    welcome = Welcome.decode_untrusted(data)
    other = ourselves("carol")
    fields = (hello.realm_tag, hello.chain, hello.boot, hello.seed, hello.nonce, hello.signature)
    changed = (bytes(8), other.member.chain, boot_id(9), bytes(8), bytes(32), bytes(3373))
    for index, value in enumerate(changed):
        forged = Hello(*fields[:index], value, *fields[index + 1 :])  # one of each, in order
        with pytest.raises(RemoteProtocolError):
            acceptor.answer_untrusted(forged.encode())
    answer = (welcome.chain, welcome.boot, welcome.seed, welcome.signature)
    for index, value in enumerate((other.member.chain, boot_id(9), bytes(8), bytes(3373))):
        lie = Welcome(*answer[:index], value, *answer[index + 1 :])  # one of each, in order
        with pytest.raises(RemoteProtocolError, match="bad-signature"):
            dialler.finish_untrusted(lie.encode())


def test_revoked_node_is_refused_in_both_roles_after_it_has_proved_who_it_is() -> None:
    """Who has only its chain learns nothing: the signature comes first."""
    revoked = make_member(make_realm(), "bob").node_id

    def admit(chain: Chain) -> None:
        if chain.credential.node_id == revoked:
            raise RemoteProtocolError("revoked")

    alice = ourselves("alice")._replace(admit=admit)
    acceptor, dialler = Acceptor(alice, CERTIFICATE, os.urandom), Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    hello = Hello.decode_untrusted(dialler.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="revoked"):
        acceptor.answer_untrusted(hello.encode())
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        acceptor.answer_untrusted(dataclasses.replace(hello, signature=bytes(3373)).encode())
    acceptor, dialler = Acceptor(ourselves("bob"), CERTIFICATE, os.urandom), Dialler(alice, CERTIFICATE, os.urandom)
    _, welcome = acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="revoked"):
        dialler.finish_untrusted(welcome)


def test_welcome_of_another_hello_is_refused() -> None:
    """The acceptor's signature covers the Hello it answered: a dialler takes no other."""
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    nonce = os.urandom(32)
    bob, carol = (Dialler(ourselves(name), CERTIFICATE, lambda size: nonce) for name in ("bob", "carol"))
    bob.hello_untrusted(acceptor.greeting)
    _, welcome = acceptor.answer_untrusted(carol.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        bob.finish_untrusted(welcome)


def test_man_in_the_middle_has_another_certificate() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), b"m" * 32, os.urandom)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))


def test_hello_sent_back_as_a_welcome_is_refused() -> None:
    """Reflection: the purposes differ.  Who says that it is the dialler has to prove that too."""
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    hello = Hello.decode_untrusted(dialler.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        dialler.finish_untrusted(Welcome(hello.chain, hello.boot, hello.seed, hello.signature).encode())


def test_own_node_id_is_refused() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("alice"), CERTIFICATE, os.urandom)
    with pytest.raises(RemoteProtocolError, match="self"):
        acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))


def test_realm_tag_does_not_show_the_realm_id() -> None:
    realm_id = make_realm().anchor.realm_id
    tag = realm_tag(realm_id)
    assert len(tag) == 8
    assert tag not in realm_id
    assert tag != realm_tag(make_realm("elsewhere").anchor.realm_id)
