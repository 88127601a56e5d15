"""The frame codec under any input: round trips, compiled == twin, peer bytes that change nothing unless verified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import assume, given
from hypothesis import strategies as st

from conflux.anchor import _codec, _codec_py, frame
from conflux.errors import LocalProtocolError, RemoteProtocolError

CODECS = (_codec, _codec_py)

aeads = st.sampled_from(sorted(frame.AEAD_NAMES))
keys = st.binary(min_size=32, max_size=32)
prefixes = st.binary(min_size=4, max_size=4)
epochs = st.integers(0, 255)
material = st.tuples(aeads, keys, prefixes, epochs)
labels = st.integers(0, 2**32 - 1)
flags = st.integers(0, 3)
counters = st.integers(0, 2**64 - 1)
entries = st.tuples(st.sampled_from(sorted(frame.KINDS)), st.binary(min_size=11, max_size=300)) | st.tuples(
    st.sampled_from([frame.PADDING, frame.END, frame.REKEY, frame.CONFIRM, frame.REPORT]), st.binary(max_size=10)
)
bundles = st.lists(entries, max_size=12)
# Any frame header, right or nearly right.
headers = st.builds(
    lambda version, flags, epoch, reserved, label, counter: (
        bytes([version, flags, epoch, reserved]) + label.to_bytes(4, "big") + counter.to_bytes(8, "big")
    ),
    st.sampled_from([1, 1, 1, 1, 0, 2]),
    st.sampled_from([0, 1, 2, 3, 3, 4, 255]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 0, 1]),
    labels,
    counters,
)


def outcome(call: Callable[[], Any]) -> Any:
    """Return what the call returned, or the rule that it named."""
    try:
        return call()
    except RemoteProtocolError as error:
        return type(error), error.reason
    except LocalProtocolError as error:
        return type(error), str(error)


def state(of: Any) -> tuple[int, ...]:
    """Return what a receiver shows of itself."""
    names = ("highest", "received", "marked") if hasattr(of, "highest") else ("counter", "bytes_sealed")
    return tuple(getattr(of, name) for name in names)


def sealed_by_hand(made: tuple[int, bytes, bytes, int], header: bytes, bundle: bytes) -> bytes:
    """Return a frame around any bytes, made without the codec."""
    aead, key, prefix, _ = made
    cipher = AESGCM(key) if aead == frame.AES_256_GCM else ChaCha20Poly1305(key)
    additional = header[:1] + bytes([header[1] & ~frame.CE]) + header[2:4] + bytes(4) + header[8:]
    return header + cipher.encrypt(prefix + header[8:], bundle, additional)


@given(material, st.lists(st.tuples(labels, flags, bundles), min_size=1, max_size=4))
def test_both_seal_the_same_bytes_and_open_each_others(
    made: tuple[int, bytes, bytes, int], frames: list[tuple[int, int, list[tuple[int, bytes]]]]
) -> None:
    senders = [codec.Sender(*made) for codec in CODECS]
    receivers = [codec.Receiver(*made) for codec in CODECS]
    for count, (label, flag_bits, bundle) in enumerate(frames):
        data, twin_data = (sender.seal(label, flag_bits, bundle) for sender in senders)
        assert data == twin_data
        assert state(senders[0]) == state(senders[1])
        for receiver in receivers:
            assert receiver.unseal(data) == bundle
        assert state(receivers[0]) == state(receivers[1])
        assert [codec.peek(data) for codec in CODECS] == [(flag_bits, made[3], label, count)] * 2


@given(
    material,
    st.integers(-1, 2**33),
    st.integers(-1, 5),
    st.lists(st.tuples(st.integers(-1, 9) | st.integers(), st.binary(max_size=14)), max_size=4),
)
def test_both_refuse_the_same_to_seal(
    made: tuple[int, bytes, bytes, int], label: int, flag_bits: int, bundle: list[tuple[int, bytes]]
) -> None:
    senders = [codec.Sender(*made) for codec in CODECS]
    results = [outcome(lambda sender=sender: sender.seal(label, flag_bits, bundle)) for sender in senders]
    assert results[0] == results[1]
    assert state(senders[0]) == state(senders[1])
    if not isinstance(results[0], bytes):
        assert state(senders[0]) == (0, 0)


@given(st.binary(max_size=80) | st.builds(lambda head, rest: head + rest, headers, st.binary(max_size=64)), labels)
def test_any_bytes_are_refused_alike_and_change_nothing(data: bytes, label: int) -> None:
    made = (frame.CHACHA20_POLY1305, bytes(32), bytes(4), 0)
    receivers = [codec.Receiver(*made) for codec in CODECS]
    results = [outcome(lambda receiver=receiver: receiver.unseal(data)) for receiver in receivers]
    assert results[0] == results[1]
    assert issubclass(results[0][0], RemoteProtocolError)
    assert [state(receiver) for receiver in receivers] == [(-1, 0, 0)] * 2
    assert outcome(lambda: _codec.peek(data)) == outcome(lambda: _codec_py.peek(data))
    assert outcome(lambda: _codec.relabel(data, label, True)) == outcome(lambda: _codec_py.relabel(data, label, True))


@given(material, headers, st.binary(max_size=40) | st.lists(st.sampled_from(range(9)), max_size=40).map(bytes))
def test_any_verified_bundle_is_read_or_refused_alike(
    made: tuple[int, bytes, bytes, int], header: bytes, bundle: bytes
) -> None:
    made = (*made[:3], 0)
    data = sealed_by_hand(made, header, bundle)
    receivers = [codec.Receiver(*made) for codec in CODECS]
    results = [outcome(lambda receiver=receiver: receiver.unseal(data)) for receiver in receivers]
    assert results[0] == results[1]
    assert state(receivers[0]) == state(receivers[1])
    if isinstance(results[0], list):
        assert b"".join(bytes([kind]) + len(body).to_bytes(2, "big") + body for kind, body in results[0]) == bundle
    again = [outcome(lambda receiver=receiver: receiver.unseal(data)) for receiver in receivers]
    verified = receivers[0].received == 1
    assert again == ([(RemoteProtocolError, "replay")] * 2 if verified else results)


@given(material, bundles, flags, st.data())
def test_changed_frames_are_refused_and_change_nothing(
    made: tuple[int, bytes, bytes, int], bundle: list[tuple[int, bytes]], flag_bits: int, draw: st.DataObject
) -> None:
    sender = _codec.Sender(*made)
    sender.seal(1, 0, [])
    data = sender.seal(1, flag_bits, bundle)
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        changed[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    cut = draw.draw(st.just(len(data)) | st.integers(0, len(data)))
    other = bytes(changed[:cut]) + draw.draw(st.just(b"") | st.binary(max_size=5))

    def rewritable(frame_bytes: bytes) -> bytes:
        return frame_bytes[:1] + bytes([frame_bytes[1] & ~frame.CE]) + frame_bytes[2:4] + frame_bytes[8:]

    assume(len(other) < 8 or rewritable(other) != rewritable(data))
    for codec in CODECS:
        receiver = codec.Receiver(*made)
        assert isinstance(outcome(lambda receiver=receiver: receiver.unseal(other)), tuple)
        assert state(receiver) == (-1, 0, 0)
        assert receiver.unseal(data) == bundle


@given(material, st.lists(st.tuples(st.integers(0, 7), labels, st.booleans()), max_size=30))
def test_a_frame_opens_once_in_any_order_under_any_label(
    made: tuple[int, bytes, bytes, int], arrivals: list[tuple[int, int, bool]]
) -> None:
    sender = _codec.Sender(*made)
    sent = [sender.seal(0, 0, [(frame.PACKET, bytes([index + 1]))]) for index in range(8)]
    receivers = [(codec, codec.Receiver(*made)) for codec in CODECS]
    seen: set[int] = set()
    marked = 0
    for index, label, congestion in arrivals:
        fresh = index not in seen
        seen.add(index)
        marked += fresh and congestion
        for codec, receiver in receivers:
            data = codec.relabel(sent[index], label, congestion)
            assert data == _codec_py.relabel(sent[index], label, congestion)
            expected = [(frame.PACKET, bytes([index + 1]))] if fresh else (RemoteProtocolError, "replay")
            assert outcome(lambda receiver=receiver, data=data: receiver.unseal(data)) == expected
            assert state(receiver) == (max(seen), len(seen), marked)


@given(st.lists(counters | st.integers(0, 20_000) | st.integers(2**64 - 20_000, 2**64 - 1), max_size=40), st.data())
def test_replay_window_is_the_set_of_what_was_seen(picks: list[int], draw: st.DataObject) -> None:
    windows: list[Any] = [codec.ReplayWindow() for codec in CODECS]
    seen: set[int] = set()
    for pick in picks:
        highest = max(seen, default=-1)
        near = highest + draw.draw(st.integers(-8200, 8300) | st.sampled_from([-8192, -8191, -64, -63, -1, 0, 1, 64]))
        for counter in (pick, near if 0 <= near < 2**64 else pick):
            highest = max(seen, default=-1)
            fresh = counter not in seen and counter > highest - frame.REPLAY_WINDOW_COUNT and counter != 2**64 - 1
            for window in windows:
                assert window.highest == highest
                assert window.check(counter) is fresh
                window.update(counter)
            if fresh:
                seen.add(counter)
