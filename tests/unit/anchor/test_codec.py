"""The frame codec, compiled and twin: entries ↔ spaced hex, whole, cut short, with a tail, and every refusal."""

from __future__ import annotations

import ctypes
import inspect
import pickle
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conflux.anchor import _codec, _codec_py, frame
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

KEY = bytes(range(32))
PREFIX = b"\xa0\xa1\xa2\xa3"
EPOCH = 5
PING = bytes.fromhex("45 00 00 1c 00 00 00 00 40 01 00 00 64 40 00 01 64 40 00 02 08 00 f7 ff 00 00 00 00")


@pytest.fixture(params=[_codec, _codec_py], ids=["compiled", "twin"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Either codec."""
    return request.param


@pytest.fixture(params=list(frame.AEAD_NAMES), ids=list(frame.AEAD_NAMES.values()))
def aead(request: pytest.FixtureRequest) -> int:
    """Either AEAD."""
    return request.param


def pair(codec: ModuleType, aead: int = frame.AES_256_GCM) -> tuple[Any, Any]:
    """A sender and its receiver."""
    return codec.Sender(aead, KEY, PREFIX, EPOCH), codec.Receiver(aead, KEY, PREFIX, EPOCH)


def sealed_by_hand(bundle: bytes, counter: int = 0, header: bytes | None = None) -> bytes:
    """Return a frame around any bytes, made without the codec."""
    head = header or bytes([1, 0, EPOCH, 0]) + bytes(4) + counter.to_bytes(8, "big")
    return head + AESGCM(KEY).encrypt(PREFIX + head[8:], bundle, head)


def refused(receiver: Any, data: bytes) -> str:
    """Assert that a receiver refuses a frame and does not change; return the reason."""
    before = (receiver.highest, receiver.received, receiver.marked)
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.unseal(data)
    assert (receiver.highest, receiver.received, receiver.marked) == before
    return caught.value.reason


# ── the shape of a frame ─────────────────────────────────────────────────────────────────────────────────────────────


def test_first_frame_is_these_bytes(codec: ModuleType) -> None:
    sender, receiver = pair(codec)
    data = sender.seal(0xC0FFEE01, frame.FEEDBACK, [(frame.PACKET, b"\x45"), (frame.END, b"")])
    assert data[:16].hex(" ") == "01 02 05 00 c0 ff ee 01 00 00 00 00 00 00 00 00"
    bundle = AESGCM(KEY).decrypt(
        PREFIX + bytes(8), data[16:], bytes.fromhex("01 02 05 00 00 00 00 00 00 00 00 00 00 00 00 00")
    )
    assert bundle.hex(" ") == "01 00 01 45 06 00 00"
    assert receiver.unseal(data) == [(frame.PACKET, b"\x45"), (frame.END, b"")]


def test_each_frame_takes_the_next_counter(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    assert (sender.counter, receiver.highest) == (0, -1)
    frames = [sender.seal(1, 0, [(frame.PACKET, PING)]) for _ in range(300)]
    assert sender.counter == 300
    assert sender.bytes_sealed == 300 * (3 + len(PING))
    assert [codec.peek(data)[3] for data in frames] == list(range(300))
    for counter, data in enumerate(frames):
        assert receiver.unseal(data) == [(frame.PACKET, PING)]
        assert (receiver.highest, receiver.received) == (counter, counter + 1)


def test_every_kind_comes_through_in_order(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    entries = [(kind, bytes([kind]) * 11) for kind in sorted(frame.KINDS)] * 2
    assert receiver.unseal(sender.seal(1, 0, entries)) == entries


def test_empty_bundle_and_empty_bodies_come_through(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    for entries in ([], [(frame.PADDING, b"")], [(frame.REKEY, b""), (frame.END, b"")]):
        data = sender.seal(1, 0, entries)
        assert len(data) == 32 + 3 * len(entries)
        assert receiver.unseal(data) == entries


def test_largest_bundle_comes_through_and_one_byte_more_is_refused(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    entries = [(frame.PACKET, b"\x60" * (frame.BUNDLE_BYTES_MAX - 3))]
    data = sender.seal(1, 0, entries)
    assert len(data) == frame.FRAME_BYTES_MAX == 65536
    assert receiver.unseal(data) == entries
    with pytest.raises(LocalProtocolError, match="too large"):
        sender.seal(1, 0, [(frame.PACKET, b"\x60" * (frame.BUNDLE_BYTES_MAX - 2))])
    with pytest.raises(LocalProtocolError, match="too large"):
        sender.seal(1, 0, [(frame.PADDING, b"")] * (frame.BUNDLE_BYTES_MAX // 3 + 1))
    assert sender.counter == 1


def test_offload_entry_needs_its_header_and_a_packet(codec: ModuleType) -> None:
    sender, receiver = pair(codec)
    assert receiver.unseal(sender.seal(1, 0, [(frame.OFFLOAD, bytes(11))])) == [(frame.OFFLOAD, bytes(11))]
    with pytest.raises(LocalProtocolError, match="without a packet"):
        sender.seal(1, 0, [(frame.OFFLOAD, bytes(10))])


# ── what the sender refuses ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("label", "flags", "entries", "why"),
    [
        (-1, 0, [], "label"),
        (2**32, 0, [], "label"),
        (2**70, 0, [], "label"),
        (1, -1, [], "flags"),
        (1, 4, [], "flags"),
        (1, 2**70, [], "flags"),
        (1, 0, [(0, b"x")], "kind"),
        (1, 0, [(8, b"x")], "kind"),
        (1, 0, [(-1, b"x")], "kind"),
        (1, 0, [(257, b"x")], "kind"),
        (1, 0, [(2**70, b"x")], "kind"),
        (1, 0, [(frame.PACKET, b"x"), (frame.PACKET, b"")], "without a packet"),
    ],
)
def test_sender_refuses_what_no_peer_would_accept(
    codec: ModuleType, label: int, flags: int, entries: list[tuple[int, bytes]], why: str
) -> None:
    sender, _ = pair(codec)
    with pytest.raises(LocalProtocolError, match=why):
        sender.seal(label, flags, entries)
    assert (sender.counter, sender.bytes_sealed) == (0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, KEY, PREFIX, 0),
        (3, KEY, PREFIX, 0),
        (2**70, KEY, PREFIX, 0),
        (1, KEY[1:], PREFIX, 0),
        (1, KEY + b"x", PREFIX, 0),
        (1, KEY, PREFIX + b"x", 0),
        (1, KEY, b"", 0),
        (1, KEY, PREFIX, -1),
        (1, KEY, PREFIX, 256),
    ],
)
def test_bad_key_material_is_refused(codec: ModuleType, arguments: tuple[int, bytes, bytes, int]) -> None:
    for of in (codec.Sender, codec.Receiver):
        with pytest.raises(LocalProtocolError):
            of(*arguments)


@pytest.mark.parametrize(
    "entries", [[None], [(1,)], [(1, b"x", 2)], [("1", b"x")], [(1, "x")], [(1, None)], [[1, b"x"]]]
)
def test_compiled_sender_survives_entries_of_the_wrong_type(entries: list[Any]) -> None:
    sender, _ = pair(_codec)
    with pytest.raises(TypeError):
        sender.seal(1, 0, entries)
    assert sender.counter == 0


def test_compiled_functions_survive_arguments_of_the_wrong_type() -> None:
    sender, receiver = pair(_codec)
    data = sender.seal(1, 0, [])
    for call in (
        lambda: sender.seal(1, 0, ()),
        lambda: sender.seal(1, 0, None),
        lambda: sender.seal("1", 0, []),
        lambda: sender.seal(1, None, []),
        lambda: receiver.unseal(None),
        lambda: receiver.unseal(bytearray(data)),
        lambda: _codec.peek("x"),
        lambda: _codec.relabel(data, None, False),
        lambda: _codec.Sender(1, None, PREFIX, 0),
        lambda: _codec.ReplayWindow().check("1"),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("codec_of", [_codec, _codec_py], ids=["compiled", "twin"])
def test_sender_stops_before_the_last_counter(codec_of: ModuleType) -> None:
    sender, receiver = pair(codec_of)
    sender.seal(1, 0, [])
    advance_counter(sender, frame.COUNTER_END - 1)
    assert receiver.unseal(sender.seal(1, 0, [(frame.END, b"")])) == [(frame.END, b"")]
    assert receiver.highest == 2**64 - 2
    with pytest.raises(LocalProtocolError, match="used up"):
        sender.seal(1, 0, [])
    assert sender.counter == frame.COUNTER_END


def advance_counter(sender: Any, counter: int) -> None:
    """Set a counter from outside: the codec has no way to do so, lest a nonce be used twice."""
    if isinstance(sender, _codec_py.Sender):
        sender._counter = counter
    else:
        # PyObject head, then struct aead (a pointer, 4 bytes and padding), then the counter.
        at = ctypes.c_uint64.from_address(id(sender) + object.__basicsize__ + 16)
        assert at.value == sender.counter == 1
        at.value = counter
    assert sender.counter == counter


# ── what the receiver refuses ────────────────────────────────────────────────────────────────────────────────────────


def test_frame_cut_short_anywhere_is_refused(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    data = sender.seal(1, 0, [(frame.PACKET, PING)])
    for size in range(len(data)):
        assert refused(receiver, data[:size]) == ("truncated" if size < 32 else "auth")
    assert receiver.unseal(data) == [(frame.PACKET, PING)]


def test_frame_with_a_tail_is_refused(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    data = sender.seal(1, 0, [(frame.PACKET, PING)])
    assert refused(receiver, data + b"\0") == "auth"
    assert refused(receiver, data + bytes(65536 - len(data))) == "auth"
    assert refused(receiver, data + bytes(65537 - len(data))) == "oversized"
    assert receiver.unseal(data) == [(frame.PACKET, PING)]


def test_every_flipped_bit_is_refused_but_those_that_relays_rewrite(codec: ModuleType, aead: int) -> None:
    sender, _ = pair(codec, aead)
    data = sender.seal(1, 0, [(frame.PACKET, PING)])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        _, receiver = pair(codec, aead)
        byte = bit // 8
        if 4 <= byte < 8 or bit == 8:
            assert receiver.unseal(bytes(flipped)) == [(frame.PACKET, PING)]
            continue
        expected = {0: "version", 2: "epoch", 3: "reserved"}.get(byte, "auth")
        if byte == 1 and 1 << bit % 8 != frame.FEEDBACK:
            expected = "reserved"
        assert refused(receiver, bytes(flipped)) == expected, f"bit {bit}"


def test_wrong_key_prefix_or_aead_is_refused_as_auth(codec: ModuleType) -> None:
    sender, _ = pair(codec)
    data = sender.seal(1, 0, [(frame.PACKET, PING)])
    for arguments in (
        (frame.AES_256_GCM, KEY[::-1], PREFIX, EPOCH),
        (frame.AES_256_GCM, KEY, PREFIX[::-1], EPOCH),
        (frame.CHACHA20_POLY1305, KEY, PREFIX, EPOCH),
    ):
        receiver = codec.Receiver(*arguments)
        with pytest.raises(AuthError):
            receiver.unseal(data)
        assert receiver.highest == -1


def test_replayed_frame_is_refused_whatever_label_it_carries(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    first, second = (sender.seal(1, 0, [(frame.PACKET, PING)]) for _ in range(2))
    receiver.unseal(second)
    receiver.unseal(first)
    for data in (first, second, codec.relabel(first, 99, True)):
        assert refused(receiver, data) == "replay"
    assert receiver.received == 2


def test_forged_far_counter_leaves_the_window_where_it_was(codec: ModuleType) -> None:
    sender, receiver = pair(codec)
    data = sender.seal(1, 0, [(frame.PACKET, PING)])
    forged = data[:8] + (2**63).to_bytes(8, "big") + data[16:]
    assert refused(receiver, forged) == "auth"
    assert receiver.unseal(data) == [(frame.PACKET, PING)]


def test_frames_behind_the_window_are_refused(codec: ModuleType) -> None:
    _, receiver = pair(codec)
    receiver.unseal(sealed_by_hand(b"", counter=10_000))
    assert refused(receiver, sealed_by_hand(b"", counter=10_000 - 8192)) == "replay"
    assert receiver.unseal(sealed_by_hand(b"", counter=10_000 - 8191)) == []
    assert (receiver.highest, receiver.received) == (10_000, 2)


def test_reserved_counter_is_refused_though_its_tag_verifies(codec: ModuleType) -> None:
    _, receiver = pair(codec)
    assert refused(receiver, sealed_by_hand(b"", counter=2**64 - 1)) == "replay"


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        ("01", "malformed"),
        ("01 00", "malformed"),
        ("01 00 02 45", "malformed"),
        ("01 ff ff 45", "malformed"),
        ("01 00 00", "malformed"),
        ("02 00 0a 00 00 00 00 00 00 00 00 00 00", "malformed"),
        ("00 00 01 45", "unknown-kind"),
        ("08 00 01 45", "unknown-kind"),
        ("ff ff ff", "unknown-kind"),
        ("01 00 01 45 04", "malformed"),
        ("04 00 00 09 00 00", "unknown-kind"),
    ],
)
def test_verified_frame_with_a_broken_bundle_counts_and_is_refused(codec: ModuleType, bundle: str, reason: str) -> None:
    _, receiver = pair(codec)
    data = sealed_by_hand(bytes.fromhex(bundle), counter=3)
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.unseal(data)
    assert caught.value.reason == reason
    assert (receiver.highest, receiver.received) == (3, 1)
    assert refused(receiver, data) == "replay"


def test_only_the_seven_kinds_are_known(codec: ModuleType) -> None:
    for kind in range(256):
        _, receiver = pair(codec)
        data = sealed_by_hand(bytes([kind, 0, 11]) + bytes(11))
        if kind in frame.KINDS:
            assert receiver.unseal(data) == [(kind, bytes(11))]
        else:
            with pytest.raises(RemoteProtocolError, match="unknown-kind"):
                receiver.unseal(data)


# ── congestion marks, labels, headers ────────────────────────────────────────────────────────────────────────────────


def test_relay_changes_label_and_mark_and_nothing_else(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    data = sender.seal(7, frame.FEEDBACK, [(frame.PACKET, PING)])
    moved = codec.relabel(data, 0xFFFFFFFF, False)
    marked = codec.relabel(moved, 3, True)
    assert moved == data[:4] + b"\xff\xff\xff\xff" + data[8:]
    assert marked == data[:1] + b"\x03" + data[2:4] + b"\0\0\0\x03" + data[8:]
    assert codec.relabel(marked, 4, False)[1] == frame.CE | frame.FEEDBACK
    assert codec.peek(marked) == (frame.CE | frame.FEEDBACK, EPOCH, 3, 0)
    assert receiver.unseal(marked) == [(frame.PACKET, PING)]
    assert (receiver.received, receiver.marked) == (1, 1)
    receiver.unseal(sender.seal(7, 0, []))
    assert (receiver.received, receiver.marked) == (2, 1)


@pytest.mark.parametrize("label", [-1, 2**32, 2**70])
def test_relabel_refuses_a_label_that_does_not_fit(codec: ModuleType, label: int) -> None:
    data = pair(codec)[0].seal(7, 0, [])
    with pytest.raises(LocalProtocolError):
        codec.relabel(data, label, False)


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ("", 0, "truncated"),
        ("01 00 00 00", 31, "truncated"),
        ("00 00 00 00", 32, "version"),
        ("02 00 00 00", 32, "version"),
        ("01 00 00 01", 32, "reserved"),
        ("01 04 00 00", 32, "reserved"),
        ("01 80 00 00", 32, "reserved"),
        ("01 00 00 00", 65537, "oversized"),
    ],
)
def test_peek_relabel_and_unseal_refuse_the_same_headers(
    codec: ModuleType, header: str, size: int, reason: str
) -> None:
    data = bytes.fromhex(header).ljust(size, b"\0")
    _, receiver = pair(codec)
    for call in (codec.peek, lambda data: codec.relabel(data, 1, False), receiver.unseal):
        with pytest.raises(RemoteProtocolError) as caught:
            call(data)
        assert caught.value.reason == reason


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_erased_keys_seal_and_open_nothing(codec: ModuleType, aead: int) -> None:
    sender, receiver = pair(codec, aead)
    data = sender.seal(1, 0, [])
    late = sender.seal(1, 0, [])
    receiver.unseal(data)
    for of in (sender, receiver, sender, receiver):
        of.erase()
    with pytest.raises(LocalProtocolError, match="erased"):
        sender.seal(1, 0, [])
    with pytest.raises(LocalProtocolError, match="erased"):
        receiver.unseal(late)
    assert (sender.counter, receiver.highest, receiver.received) == (2, 0, 1)


def test_compiled_keys_cannot_be_pickled_or_made_twice() -> None:
    for of in pair(_codec):
        with pytest.raises(TypeError):
            pickle.dumps(of)
    sender, receiver = pair(_codec)
    data = sender.seal(1, 0, [])
    sender.__init__(frame.AES_256_GCM, bytes(32), PREFIX, 9)  # must not start the counter over
    assert sender.counter == 1
    assert receiver.unseal(sender.seal(1, 0, [])) == []
    assert receiver.unseal(data) == []


def test_compiled_and_twin_have_the_same_names_parameters_and_docstrings() -> None:
    assert sorted(_codec.__all__) == [
        name
        for name, item in sorted(vars(_codec_py).items())
        if name[0] != "_" and getattr(item, "__module__", "") == _codec_py.__name__
    ]
    for name in _codec.__all__:
        compiled, twin = getattr(_codec, name), getattr(_codec_py, name)
        items = [(compiled, twin)]
        if inspect.isclass(twin):
            methods = sorted(item for item in vars(twin) if item[0] != "_")
            assert sorted(item for item in vars(compiled) if item[0] != "_") == methods
            items += [(getattr(compiled, method), getattr(twin, method)) for method in methods]
        for a, b in items:
            assert inspect.getdoc(a) == inspect.getdoc(b), b  # Python 3.13 takes the indentation out, Cython does not
            if inspect.isfunction(b):
                assert list(inspect.signature(a).parameters) == list(inspect.signature(b).parameters)
