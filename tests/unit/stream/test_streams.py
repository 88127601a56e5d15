"""Two stream machines that talk directly: handshake, refusals, epochs, bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.builders import FIRST_BOOT, NOW_UNIX, make_card, make_credential, make_member, make_realm

from conflux.anchor.frame import CHACHA20_POLY1305, REKEY
from conflux.control.envelope import Kind
from conflux.crypto import kem
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import BootId
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.stream.event import (
    CardOutdated,
    ReceiverEnd,
    ReceiverGone,
    ReceiverReady,
    SendEntry,
    SenderEnd,
    SenderFailed,
    SenderReady,
    SignedAnew,
)
from conflux.stream.handshake import Accept, Open, Refused, RekeyOffer
from conflux.stream.resuming import Resumption
from conflux.stream.resumptions import HALF_OPEN_S
from conflux.stream.streams import (
    ANSWER_INTERVAL_S_MIN,
    INCOMING_PER_PEER_MAX,
    REKEY_GIVE_UP_S,
    REKEY_INTERVAL_S_MIN,
    REKEY_RETRY_S,
    Streams,
)

REALM = make_realm("streams")
S, D = make_member(REALM, "sender"), make_member(REALM, "destination")
S_CARD, D_CARD = make_card(S), make_card(D)


class Entropy:
    """Bytes that count up, so that every run is the same."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size)


def streams(member=S, boot: BootId = FIRST_BOOT) -> Streams:
    return Streams(member, boot=boot, aead=CHACHA20_POLY1305, entropy=Entropy(), resumption=Resumption.OFF)


def events(side: Streams) -> list:
    return list(iter(side.next_event, None))


def opened(s: Streams, d: Streams) -> tuple[SenderReady, ReceiverReady]:
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, "request", now=0.0)
    s.receive_accept(D.node_id, d.next_transmit().body, now=0.0)
    (sender,), (signed, receiver) = events(s), events(d)
    assert signed == SignedAnew(S.node_id)
    return sender, receiver


def test_handshake_gives_both_ends_the_same_keys():
    sender, receiver = opened(streams(), streams(D))
    assert (sender.data, sender.feedback) == (receiver.data, receiver.feedback)
    assert sender.data.key != sender.feedback.key
    assert (sender.peer, receiver.peer) == (D.node_id, S.node_id)
    assert sender.data.aead == CHACHA20_POLY1305


def test_every_stream_has_a_secret_of_its_own():
    s, d = streams(), streams(D)
    first, second = opened(s, d)[0], opened(s, d)[0]
    assert first.stream != second.stream
    assert first.data.key != second.data.key


def test_keys_are_not_shown():
    sender, _ = opened(streams(), streams(D))
    assert sender.data.key.hex() not in repr(sender)
    assert repr(sender.data.key) not in repr(sender)


def test_open_made_before_a_restart_is_refused():
    s, d = streams(), streams(D, boot=BootId(b"\0\0\0\0\2new"))
    s.open(D_CARD, now=0.0)
    with pytest.raises(RemoteProtocolError, match="stale-boot"):
        d.receive_open(S_CARD, s.next_transmit().body, None, now=0.0)
    assert events(d) == []


def test_replayed_open_is_refused_and_changes_nothing():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    body = s.next_transmit().body
    d.receive_open(S_CARD, body, None, now=0.0)
    events(d)
    d.next_transmit()
    with pytest.raises(RemoteProtocolError, match="replay"):
        d.receive_open(S_CARD, body, None, now=1.0)
    assert events(d) == []
    assert d.next_transmit() is None


@pytest.mark.parametrize("field", ["kem_public", "lifetime_s"])
def test_altered_open_is_refused(field):
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    open_ = Open.decode_untrusted(s.next_transmit().body)
    altered = replace(open_, kem_public=bytes(1216)) if field == "kem_public" else replace(open_, lifetime_s=1)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        d.receive_open(S_CARD, altered.encode(), None, now=0.0)
    assert events(d) == []


def test_open_that_names_another_sender_is_refused():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    other = make_card(make_member(REALM, "other"))
    with pytest.raises(RemoteProtocolError, match="misaddressed"):
        d.receive_open(other, s.next_transmit().body, None, now=0.0)


def test_open_under_a_renewed_credential_is_accepted_and_the_card_called_outdated():
    renewed = Member(S.keys, S.anchor, Chain(make_credential(REALM, "sender", not_before=NOW_UNIX + 86400), None))
    s, d = streams(), streams(D)
    for adopted in (S, renewed):
        s.adopt(adopted)
        s.open(D_CARD, now=0.0)
        d.receive_open(S_CARD, s.next_transmit().body, "request", now=0.0)
        s.receive_accept(D.node_id, d.next_transmit().body, now=0.0)
        assert isinstance(s.next_event(), SenderReady)
    assert [type(event) for event in events(d)] == [SignedAnew, ReceiverReady, SignedAnew, CardOutdated, ReceiverReady]


def test_altered_accept_is_refused_and_the_true_one_still_works():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, None, now=0.0)
    body = d.next_transmit().body
    weaker = replace(Accept.decode_untrusted(body), ciphertext=bytes(1120)).encode()
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        s.receive_accept(D.node_id, weaker, now=0.0)
    s.receive_accept(D.node_id, body, now=0.0)
    assert isinstance(s.next_event(), SenderReady)


def test_accept_of_another_open_is_refused():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, None, now=0.0)
    accept = replace(Accept.decode_untrusted(d.next_transmit().body), open_hash=bytes(32))
    with pytest.raises(AuthError, match="another open"):
        s.receive_accept(D.node_id, accept.sign(D.keys.signing, REALM.anchor.realm_id).encode(), now=0.0)
    assert events(s) == []


def test_accept_of_another_node_is_refused():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, None, now=0.0)
    with pytest.raises(RemoteProtocolError, match="unexpected"):
        s.receive_accept(S.node_id, d.next_transmit().body, now=0.0)


def test_no_answer_fails_the_stream():
    s = streams()
    stream = s.open(D_CARD, now=0.0)
    s.open_failed(stream, SenderEnd.NO_ANSWER, "absent")
    assert events(s) == [SenderFailed(stream, D.node_id, SenderEnd.NO_ANSWER, "absent")]


def test_unused_stream_is_forgotten_and_a_used_one_is_not():
    d = streams(D)
    _, unused = opened(streams(), d)
    s = streams()
    s._book.entropy.count = 50  # type: ignore[attr-defined]
    _, used = opened(s, d)
    d.receiver_verified(used.stream)
    d.handle_timeout(now=HALF_OPEN_S)
    assert [event.stream for event in events(d)] == [unused.stream]
    assert d.receives(used.stream) == S.node_id


def test_a_peer_has_a_bounded_share_and_pushes_out_its_own_oldest():
    s, d = streams(), streams(D)
    streams_open = [opened(s, d)[1].stream for _ in range(INCOMING_PER_PEER_MAX)]
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, None, now=0.0)
    _, gone, ready = events(d)
    assert gone == ReceiverGone(streams_open[0], S.node_id, ReceiverEnd.REPLACED)
    assert isinstance(ready, ReceiverReady)


def test_a_full_table_says_busy(monkeypatch):
    monkeypatch.setattr("conflux.stream.streams.INCOMING_COUNT_MAX", 0)
    s, d = streams(), streams(D)
    stream = s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_transmit().body, "request", now=0.0)
    refusal = d.next_transmit()
    assert refusal.kind is Kind.OPEN_REFUSED
    s.receive_refused(D.node_id, refusal.body)
    assert events(s) == [SenderFailed(stream, D.node_id, SenderEnd.REFUSED, "busy")]


def test_word_of_a_refusing_peer_is_not_taken_for_an_own_end():
    s = streams()
    stream = s.open(D_CARD, now=0.0)
    s.receive_refused(D.node_id, Refused(stream, "lifetime").encode())
    assert events(s) == [SenderFailed(stream, D.node_id, SenderEnd.REFUSED, "lifetime")]


def rekeyed(s: Streams, d: Streams, stream, now: float):
    s.rekey(stream, now=now)
    offer = s.next_event()
    assert (offer.stream, offer.kind) == (stream, REKEY)
    epoch = s._outgoing[stream].keys.data.epoch
    d.receive_entry(stream, REKEY, offer.body, epoch=epoch, now=now)
    receiver, answer = events(d)
    s.receive_entry(stream, REKEY, answer.body, epoch=epoch, now=now)
    (sender,) = events(s)
    return sender, receiver, offer, answer


def test_rekey_gives_both_ends_the_next_epoch():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    sender, receiver, *_ = rekeyed(s, d, first.stream, 120.0)
    assert (sender.data, sender.feedback) == (receiver.data, receiver.feedback)
    assert sender.data.epoch == 1
    assert sender.data.key != first.data.key
    again, _, *_ = rekeyed(s, d, first.stream, 240.0)
    assert again.data.epoch == 2


def test_repeated_offer_gets_the_identical_answer_and_no_second_key():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    s.rekey(first.stream, now=0.0)
    offer = s.next_event()
    d.receive_entry(first.stream, REKEY, offer.body, epoch=0, now=0.0)
    _, answer = events(d)
    d.receive_entry(first.stream, REKEY, offer.body, epoch=0, now=REKEY_RETRY_S)
    assert events(d) == [answer]


def test_an_answer_is_repeated_twice_a_second_at_most():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    *_, offer, answer = rekeyed(s, d, first.stream, 100.0)
    for now in (100.0, 100.4):
        with pytest.raises(RemoteProtocolError, match="on its way"):
            d.receive_entry(first.stream, REKEY, offer.body, epoch=0, now=now)
    assert events(d) == []
    d.receive_entry(first.stream, REKEY, offer.body, epoch=0, now=100.0 + ANSWER_INTERVAL_S_MIN)
    assert events(d) == [answer]


def test_no_key_is_agreed_on_before_the_one_before_is_used(monkeypatch):
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    rekeyed(s, d, first.stream, 120.0)
    monkeypatch.setattr("conflux.stream.streams.kem.encapsulate", lambda public: pytest.fail("the work was done"))
    offer = RekeyOffer(2, kem.PrivateKey.generate().public).encode()
    with pytest.raises(RemoteProtocolError, match="not used yet"):
        d.receive_entry(first.stream, REKEY, offer, epoch=0, now=240.0)
    monkeypatch.undo()
    d.receive_entry(first.stream, REKEY, offer, epoch=1, now=240.0)
    assert len(events(d)) == 2


def test_a_sender_gets_one_key_in_ten_seconds(monkeypatch):
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    rekeyed(s, d, first.stream, 120.0)
    offer = RekeyOffer(2, kem.PrivateKey.generate().public).encode()
    with monkeypatch.context() as patch:
        patch.setattr("conflux.stream.streams.kem.encapsulate", lambda public: pytest.fail("the work was done"))
        with pytest.raises(RemoteProtocolError, match="too soon"):
            d.receive_entry(first.stream, REKEY, offer, epoch=1, now=120.0 + REKEY_INTERVAL_S_MIN - 0.01)
    d.receive_entry(first.stream, REKEY, offer, epoch=1, now=120.0 + REKEY_INTERVAL_S_MIN)
    assert len(events(d)) == 2


def test_offer_is_repeated_until_answered_and_given_up_after_a_minute():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    s.rekey(first.stream, now=0.0)
    s.next_event()
    s.handle_timeout(now=REKEY_RETRY_S)
    assert isinstance(s.next_event(), SendEntry)
    s.handle_timeout(now=REKEY_GIVE_UP_S)
    assert events(s) == [SenderFailed(first.stream, D.node_id, SenderEnd.REKEY)]


def test_offer_of_a_wrong_epoch_is_refused():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    with pytest.raises(RemoteProtocolError, match="epoch"):
        d.receive_entry(first.stream, REKEY, RekeyOffer(7, bytes(1216)).encode(), epoch=0, now=0.0)


def test_repeated_answer_is_ignored():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    _, _, _, answer = rekeyed(s, d, first.stream, 0.0)
    s.receive_entry(first.stream, REKEY, answer.body, epoch=0, now=0.0)
    assert events(s) == []


def test_streams_of_a_restarted_peer_end():
    s, d = streams(), streams(D)
    sender, _ = opened(s, d)
    s.peer_restarted(D.node_id)
    assert events(s) == [SenderFailed(sender.stream, D.node_id, SenderEnd.RESTARTED)]
    assert s.next_timeout() is None


def test_closed_streams_leave_no_timer():
    s, d = streams(), streams(D)
    sender, receiver = opened(s, d)
    s.close_sender(sender.stream)
    d.close_receiver(receiver.stream, ReceiverEnd.DONE)
    assert (s.next_timeout(), d.next_timeout()) == (None, None)


def test_open_under_the_id_of_an_own_stream_is_refused():
    s, d = streams(), streams(D)
    stream = s.open(D_CARD, now=0.0)
    d._book.entropy = lambda size: stream  # the destination knows the id of that stream
    d.open(S_CARD, now=0.0)
    with pytest.raises(RemoteProtocolError, match="replay"):
        s.receive_open(D_CARD, d.next_transmit().body, "request", now=0.0)
    assert events(s) == []


# ── what is erased ──


def is_erased(chain: bytearray) -> bool:
    return not any(chain)


def test_kem_key_of_a_handshake_is_erased_when_it_is_accepted():
    s, d = streams(), streams(D)
    stream = s.open(D_CARD, now=0.0)
    body = s.next_transmit().body
    kem_key = s._outgoing[stream].kem_key
    d.receive_open(S_CARD, body, "request", now=0.0)
    s.receive_accept(D.node_id, d.next_transmit().body, now=0.0)
    assert repr(kem_key) == "PrivateKey(erased)"
    assert s._outgoing[stream].kem_key is None


def test_kem_key_of_a_stream_that_is_given_up_is_erased():
    s = streams()
    stream = s.open(D_CARD, now=0.0)
    s.next_transmit()
    kem_key = s._outgoing[stream].kem_key
    s.close_sender(stream)
    assert repr(kem_key) == "PrivateKey(erased)"


def test_open_is_made_when_its_peer_may_have_it_and_not_before():
    s = streams()
    stream = s.open(D_CARD, now=0.0)
    assert s.next_transmit(lambda peer: peer != D.node_id) is None
    assert s._outgoing[stream].kem_key is None
    assert s.next_transmit(lambda peer: peer == D.node_id).stream == stream
    assert s.next_transmit() is None


def test_stream_closed_before_its_open_is_made_sends_none():
    s = streams()
    s.close_sender(s.open(D_CARD, now=0.0))
    assert s.next_transmit() is None


def test_chain_keys_of_both_ends_are_erased_with_their_streams():
    s, d = streams(), streams(D)
    sender, receiver = opened(s, d)
    sent, received = s._outgoing[sender.stream].keys.chain, d._incoming[receiver.stream].keys.chain
    assert not is_erased(sent)
    assert not is_erased(received)
    s.close_sender(sender.stream)
    assert is_erased(sent)
    d.close_receiver(receiver.stream, ReceiverEnd.DONE)
    assert is_erased(received)


def test_rekey_erases_the_chain_keys_of_the_epoch_before_and_its_kem_key():
    s, d = streams(), streams(D)
    sender, receiver = opened(s, d)
    sent, received = s._outgoing[sender.stream].keys.chain, d._incoming[receiver.stream].keys.chain
    s.rekey(sender.stream, now=0.0)
    kem_key = s._outgoing[sender.stream].kem_key
    d.receive_entry(sender.stream, REKEY, s.next_event().body, epoch=0, now=0.0)
    assert is_erased(received)
    assert not is_erased(sent), "the receiver's answer may be lost"
    s.receive_entry(sender.stream, REKEY, events(d)[1].body, epoch=0, now=0.0)
    assert is_erased(sent)
    assert repr(kem_key) == "PrivateKey(erased)"
