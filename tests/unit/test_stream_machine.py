"""Two stream machines in a room: handshake, refusals, epochs, bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import FIRST_BOOT, make_card, make_member, make_realm

from conflux.anchor.frame import CHACHA20_POLY1305, REKEY
from conflux.control.channel import Kind
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId
from conflux.stream import machine
from conflux.stream.handshake import Accept, Open, RekeyOffer
from conflux.stream.machine import Streams

REALM = make_realm("streams")
S, D = make_member(REALM, "sender"), make_member(REALM, "destination")
S_CARD, D_CARD = make_card(S), make_card(D)


class Entropy:
    """Bytes that count up, so that a run is the same every time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size)


def streams(member=S, boot: BootId = FIRST_BOOT) -> Streams:
    return Streams(member, boot=boot, aead=CHACHA20_POLY1305, entropy=Entropy())


def events(side: Streams) -> list:
    return list(iter(side.next_event, None))


def opened(s: Streams, d: Streams) -> tuple[machine.SenderReady, machine.ReceiverReady]:
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_send().body, "request", now=0.0)
    s.receive_accept(D.node_id, d.next_send().body, now=0.0)
    (sender,), (receiver,) = events(s), events(d)
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


def test_open_for_an_earlier_life_is_refused():
    s, d = streams(), streams(D, boot=BootId(b"\0\0\0\0\2new"))
    s.open(D_CARD, now=0.0)
    with pytest.raises(RemoteProtocolError, match="stale-boot"):
        d.receive_open(S_CARD, s.next_send().body, None, now=0.0)
    assert events(d) == []


def test_replayed_open_is_refused_and_changes_nothing():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    body = s.next_send().body
    d.receive_open(S_CARD, body, None, now=0.0)
    events(d)
    d.next_send()
    with pytest.raises(RemoteProtocolError, match="replay"):
        d.receive_open(S_CARD, body, None, now=1.0)
    assert events(d) == []
    assert d.next_send() is None


@pytest.mark.parametrize("field", ["kem_public", "lifetime_s"])
def test_altered_open_is_refused(field):
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    open_ = Open.decode_untrusted(s.next_send().body)
    altered = replace(open_, kem_public=bytes(1216)) if field == "kem_public" else replace(open_, lifetime_s=1)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        d.receive_open(S_CARD, altered.encode(), None, now=0.0)
    assert events(d) == []


def test_open_that_names_another_sender_is_refused():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    other = make_card(make_member(REALM, "other"))
    with pytest.raises(RemoteProtocolError, match="misaddressed"):
        d.receive_open(other, s.next_send().body, None, now=0.0)


def test_altered_accept_is_refused_and_the_true_one_still_works():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_send().body, None, now=0.0)
    body = d.next_send().body
    weaker = replace(Accept.decode_untrusted(body), ciphertext=bytes(1120)).encode()
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        s.receive_accept(D.node_id, weaker, now=0.0)
    s.receive_accept(D.node_id, body, now=0.0)
    assert isinstance(s.next_event(), machine.SenderReady)


def test_accept_of_another_node_is_refused():
    s, d = streams(), streams(D)
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_send().body, None, now=0.0)
    with pytest.raises(RemoteProtocolError, match="unexpected"):
        s.receive_accept(S.node_id, d.next_send().body, now=0.0)


def test_no_answer_fails_the_stream():
    s = streams()
    stream = s.open(D_CARD, now=0.0)
    s.open_failed(stream, "absent")
    assert events(s) == [machine.SenderFailed(stream, D.node_id, "absent")]


def test_unused_stream_is_forgotten_and_a_used_one_is_not():
    d = streams(D)
    _, unused = opened(streams(), d)
    s = streams()
    s._entropy.count = 50
    _, used = opened(s, d)
    d.receiver_verified(used.stream)
    d.handle_timeout(now=machine.HALF_OPEN_S)
    assert [event.stream for event in events(d)] == [unused.stream]
    assert d.receives(used.stream) == S.node_id


def test_a_peer_has_a_bounded_share_and_pushes_out_its_own_oldest():
    s, d = streams(), streams(D)
    streams_open = [opened(s, d)[1].stream for _ in range(machine.INCOMING_PER_PEER_MAX)]
    s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_send().body, None, now=0.0)
    gone, ready = events(d)
    assert gone == machine.ReceiverGone(streams_open[0], S.node_id, "replaced")
    assert isinstance(ready, machine.ReceiverReady)


def test_a_full_table_says_busy(monkeypatch):
    monkeypatch.setattr(machine, "INCOMING_COUNT_MAX", 0)
    s, d = streams(), streams(D)
    stream = s.open(D_CARD, now=0.0)
    d.receive_open(S_CARD, s.next_send().body, "request", now=0.0)
    refusal = d.next_send()
    assert refusal.kind is Kind.OPEN_REFUSED
    s.receive_refused(D.node_id, refusal.body)
    assert events(s) == [machine.SenderFailed(stream, D.node_id, "refused: busy")]


def rekeyed(s: Streams, d: Streams, stream, now: float):
    s.rekey(stream, now=now)
    offer = s.next_event()
    assert (offer.stream, offer.kind) == (stream, REKEY)
    d.receive_entry(stream, REKEY, offer.body)
    receiver, answer = events(d)
    s.receive_entry(stream, REKEY, answer.body)
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
    d.receive_entry(first.stream, REKEY, offer.body)
    _, answer = events(d)
    d.receive_entry(first.stream, REKEY, offer.body)
    assert events(d) == [answer]


def test_offer_is_repeated_until_answered_and_given_up_after_a_minute():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    s.rekey(first.stream, now=0.0)
    s.next_event()
    s.handle_timeout(now=machine.REKEY_RETRY_S)
    assert isinstance(s.next_event(), machine.SendEntry)
    s.handle_timeout(now=machine.REKEY_GIVE_UP_S)
    assert events(s) == [machine.SenderFailed(first.stream, D.node_id, "rekey")]


def test_offer_of_a_wrong_epoch_is_refused():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    with pytest.raises(RemoteProtocolError, match="epoch"):
        d.receive_entry(first.stream, REKEY, RekeyOffer(7, bytes(1216)).encode())


def test_repeated_answer_is_ignored():
    s, d = streams(), streams(D)
    first, _ = opened(s, d)
    _, _, _, answer = rekeyed(s, d, first.stream, 0.0)
    s.receive_entry(first.stream, REKEY, answer.body)
    assert events(s) == []


def test_restarted_peer_takes_its_streams_with_it():
    s, d = streams(), streams(D)
    sender, _ = opened(s, d)
    s.forget_peer(D.node_id, "restarted")
    assert events(s) == [machine.SenderFailed(sender.stream, D.node_id, "restarted")]
    assert s.next_timeout() is None


def test_closed_streams_leave_no_timer():
    s, d = streams(), streams(D)
    sender, receiver = opened(s, d)
    s.close_sender(sender.stream)
    d.close_receiver(receiver.stream, "done")
    assert (s.next_timeout(), d.next_timeout()) == (None, None)


def test_open_under_the_name_of_a_stream_we_send_is_refused():
    s, d = streams(), streams(D)
    stream = s.open(D_CARD, now=0.0)
    d._entropy = lambda size: stream  # the destination knows that name
    d.open(S_CARD, now=0.0)
    with pytest.raises(RemoteProtocolError, match="replay"):
        s.receive_open(D_CARD, d.next_send().body, "request", now=0.0)
    assert events(s) == []
