"""Known answers of the Anchor data frame, for this codec and for anybody else's.

frames.json is our own.  It was made by this file, which puts each frame together from the drawing in
docs/reference/protocol.md and one call of the AEAD, without the codec; where a field stands on the wire is therefore
said twice, here and there.  Made again (the same bytes) by

    python tests/vectors/test_frame_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from conflux.anchor import _codec, _codec_py
from conflux.errors import RemoteProtocolError

FRAMES = Path(__file__).with_name("frames.json")

KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
PREFIX = "a0a1a2a3"
# ICMPv4 echo request from 100.64.0.1 to 100.64.0.2, no data.
PING = "4500001c00000000400100006440000164400002" + "0800f7ff00000000"
# virtio-net header (TCPv4, 40 bytes of headers, segments of 1370, checksum from 20 at 16), then a bare TCP/IPv4 head.
VIRTIO = "01" + "01" + "2800" + "5a05" + "1400" + "1000"
SUPER_PACKET = VIRTIO + "4500002800000000400600006440000164400002" + "0050c350000000000000000050100000" + "00000000"


def compose(
    name: str,
    *,
    aead: int = 1,
    epoch: int = 0,
    label: int = 1,
    flags: int = 0,
    counter: int = 0,
    entries: tuple[tuple[int, str], ...] = (),
    bundle: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """One vector.  bundle: instead of entries, what no sender of ours would seal.  reason: why a receiver refuses."""
    plain = b"".join(bytes([kind, *divmod(len(body) // 2, 256)]) + bytes.fromhex(body) for kind, body in entries)
    if bundle is not None:
        plain = bytes.fromhex(bundle)
    tail = counter.to_bytes(8, "big")
    header = bytes([1, flags, epoch, 0]) + label.to_bytes(4, "big") + tail
    additional = bytes([1, flags & 0xFE, epoch, 0, 0, 0, 0, 0]) + tail
    nonce = bytes.fromhex(PREFIX) + tail
    cipher = AESGCM(bytes.fromhex(KEY)) if aead == 1 else ChaCha20Poly1305(bytes.fromhex(KEY))
    vector: dict[str, Any] = {
        "name": name,
        "aead": aead,
        "key": KEY,
        "nonce_prefix": PREFIX,
        "epoch": epoch,
        "label": label,
        "flags": flags,
        "counter": counter,
        "nonce": nonce.hex(),
        "additional_data": additional.hex(),
        "bundle": plain.hex(),
        "frame": (header + cipher.encrypt(nonce, plain, additional)).hex(),
    }
    if reason is None:
        vector["entries"] = [list(entry) for entry in entries]
    else:
        vector["reason"] = reason
    return vector


def broken(name: str, reason: str, at: int, byte: int, *, aead: int = 1) -> dict[str, Any]:
    """A good frame with one byte replaced."""
    vector = compose(name, aead=aead, entries=((1, PING),), reason=reason)
    data = bytearray.fromhex(vector["frame"])
    data[at] = byte
    return vector | {"frame": data.hex()}


def make() -> dict[str, Any]:
    good = [
        vector
        for aead in (1, 2)
        for vector in (
            compose("empty bundle", aead=aead),
            compose("one ping", aead=aead, entries=((1, PING),)),
            compose("two packets and padding", aead=aead, epoch=255, entries=((1, PING), (1, PING), (4, "00" * 7))),
            compose("offload", aead=aead, epoch=7, label=0xFFFFFFFF, entries=((2, SUPER_PACKET),)),
            compose("feedback report", aead=aead, flags=2, counter=1, entries=((7, "0102030405"),)),
            compose("marked by a relay", aead=aead, flags=1, counter=0x0102030405060708, entries=((1, PING),)),
            compose("marked feedback", aead=aead, flags=3, counter=2**63, entries=((5, "c0ffee"),)),
            compose("rekey, confirm and end", aead=aead, counter=255, entries=((3, "aa" * 300), (5, ""), (6, ""))),
            compose("last counter", aead=aead, counter=2**64 - 2, entries=((6, ""),)),
        )
    ]
    bad = [
        compose("counter that is never sealed", counter=2**64 - 1, entries=((6, ""),), reason="replay"),
        compose("bundle overruns", bundle="01001d" + PING, reason="malformed"),
        compose("entry header cut short", bundle="0400000100", reason="malformed"),
        compose("empty packet", bundle="010000", reason="malformed"),
        compose("offload without a packet", bundle="02000a" + "00" * 10, reason="malformed"),
        compose("kind 0", bundle="00000145", reason="unknown-kind"),
        compose("kind 8", bundle="08000145", reason="unknown-kind"),
        broken("version 2", "version", 0, 2),
        broken("unknown flag", "reserved", 1, 4),
        broken("reserved byte", "reserved", 3, 1),
        broken("other epoch", "epoch", 2, 1),
        broken("feedback flag set on the way", "auth", 1, 2),
        broken("other counter", "auth", 15, 1),
        broken("changed bundle", "auth", 16, 0, aead=2),
        broken("changed tag", "auth", -1, 0),
        compose("31 bytes", reason="truncated") | {"frame": "01" + "00" * 30},
    ]
    return {
        "source": "Conflux's own; made by tests/vectors/test_frame_vectors.py with cryptography 50.0.2, 2026-11-22",
        "aeads": {"1": "AES-256-GCM", "2": "ChaCha20-Poly1305"},
        "entries": "[kind, body in hex]; a vector with a reason instead is refused by a receiver of epoch 0",
        "frames": good + bad,
    }


VECTORS: list[dict[str, Any]] = json.loads(FRAMES.read_text())["frames"] if FRAMES.exists() else []


@pytest.fixture(params=[_codec, _codec_py], ids=["compiled", "twin"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def arguments(vector: dict[str, Any]) -> tuple[int, bytes, bytes, int]:
    return vector["aead"], bytes.fromhex(vector["key"]), bytes.fromhex(vector["nonce_prefix"]), vector["epoch"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['aead']} {vector['name']}")
def test_receiver_reads_or_refuses_the_frame(codec: ModuleType, vector: dict[str, Any]) -> None:
    receiver = codec.Receiver(*arguments(vector))
    data = bytes.fromhex(vector["frame"])
    if "reason" in vector:
        with pytest.raises(RemoteProtocolError) as caught:
            receiver.unseal(data)
        assert caught.value.reason == vector["reason"]
    else:
        entries = [(kind, bytes.fromhex(body)) for kind, body in vector["entries"]]
        assert receiver.unseal(data) == entries
        assert receiver.highest == vector["counter"]
        assert codec.peek(data) == (vector["flags"], vector["epoch"], vector["label"], vector["counter"])


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if "entries" in vector and vector["counter"] < 256],
    ids=lambda vector: f"{vector['aead']} {vector['name']}",
)
def test_sender_seals_these_bytes(codec: ModuleType, vector: dict[str, Any]) -> None:
    sender = codec.Sender(*arguments(vector))
    for _ in range(vector["counter"]):
        sender.seal(0, 0, [])
    entries = [(kind, bytes.fromhex(body)) for kind, body in vector["entries"]]
    assert sender.seal(vector["label"], vector["flags"], entries).hex() == vector["frame"]


def test_vectors_are_what_their_maker_makes() -> None:
    assert json.loads(FRAMES.read_text()) == make()


if __name__ == "__main__":
    FRAMES.write_text(json.dumps(make(), indent=1) + "\n")
