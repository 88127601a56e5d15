"""What single calls cost in this process: the frame codec, its ciphers, and the cryptography of a stream handshake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from conflux.anchor import codec, frame
from conflux.anchor.speed import best_aead
from conflux.bench.figure import LESS, MORE, Figure, Plan, Recorder, per_second, seconds_each
from conflux.crypto import kem, seal, sign

SIZES: Final = (64, 1400, 16384, 60000)  # a small packet, a full one, a bundle, a super-packet
PACKETS_16K: Final = [(frame.PACKET, bytes(1362))] * 12  # 16,380 bytes with their entry headers
PACKET_SMALL: Final = [(frame.PACKET, bytes(84))]  # a ping

_BATCH_BYTES = 4 << 20  # of sealed frames kept at once: more than the caches of small boards, as with real frames
_BATCH_COUNT_MAX = 1024  # making a receiver is then 1 % of the smallest frames' cost
_OPEN_BYTES = 2500  # about an OPEN, the larger of a handshake's two messages

_KEY, _PREFIX = bytes(range(frame.KEY_BYTES)), bytes(4)

Bundle = list[tuple[int, bytes]]


def ciphers(plan: Plan, recorder: Recorder) -> None:
    """Measure both AEADs of frames at several sizes."""
    for size in SIZES:  # outside: both AEADs of one size are measured, and shown, side by side
        for aead, name in frame.AEAD_NAMES.items():
            recorder.step("ciphers", f"{name}, {size:,} bytes")
            entry = size - frame.ENTRY_HEADER_BYTES
            sealing, opening = _both(aead, [(frame.PADDING, bytes(entry))], plan)
            for verb, seconds in (("seal", sealing), ("open", opening)):
                slug = f"{name.split('-')[0].lower()}_{verb}_{size}"
                title = f"{name}, {verb} {size:,} bytes"
                rates = tuple(rate / 1e6 for rate in per_second(size, seconds))
                recorder.figure(Figure("ciphers", slug, title, "MB/s", MORE, rates))
    recorder.setting("aead", frame.AEAD_NAMES[best_aead()])


def frames(plan: Plan, recorder: Recorder) -> None:
    """Measure frames with the AEAD that this machine asks its peers for."""
    aead = best_aead()
    recorder.step("codec", "a bundle of 12 packets, 16 KiB")
    sealing, opening = _both(aead, PACKETS_16K, plan)
    size = sum(frame.ENTRY_HEADER_BYTES + len(body) for _, body in PACKETS_16K)
    for verb, seconds in (("seal", sealing), ("open", opening)):
        rates = tuple(rate / 1e6 for rate in per_second(size, seconds))
        recorder.figure(Figure("codec", f"frame_{verb}_bundle", f"{verb} a 16 KiB bundle", "MB/s", MORE, rates))
    recorder.step("codec", "one packet of 84 bytes")
    for verb, seconds in zip(("seal", "open"), _both(aead, PACKET_SMALL, plan), strict=True):
        each = tuple(second * 1e9 for second in seconds)
        recorder.figure(Figure("codec", f"frame_{verb}_small", f"{verb} a frame of one small packet", "ns", LESS, each))


def _both(aead: int, bundle: Bundle, plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return, for every round, the seconds that one bundle takes to seal, and those that it takes to open."""
    size = sum(len(body) for _, body in bundle)
    count = max(16, min(_BATCH_COUNT_MAX, _BATCH_BYTES // size))
    sender = codec.Sender(aead, _KEY, _PREFIX, 0)

    def seal_batch() -> int:
        for _ in range(count):
            sender.seal(1, 0, bundle)
        return count

    far = codec.Sender(aead, _KEY, _PREFIX, 0)
    sealed = [far.seal(1, 0, bundle) for _ in range(count)]

    def open_batch() -> int:
        unseal = codec.Receiver(aead, _KEY, _PREFIX, 0).unseal  # a new one: a receiver opens no frame twice
        for data in sealed:
            unseal(data)
        return count

    return seconds_each(seal_batch, plan), seconds_each(open_batch, plan)


def handshake(plan: Plan, recorder: Recorder) -> None:
    """Measure the primitives of a stream handshake, and the whole of it: what both ends compute together."""
    context, message = sign.context("bench", bytes(16)), bytes(_OPEN_BYTES)
    signing, private, box = sign.SigningKey.generate(), kem.PrivateKey.generate(), seal.SealKey.generate()
    signature = signing.sign(context, message)
    ciphertext, _ = kem.encapsulate(private.public)
    sealed = seal.seal(box.public, message, b"info")

    def everything() -> object:
        """Make, seal, unseal and answer an OPEN, then likewise an ACCEPT; one node plays both ends."""
        ephemeral = kem.PrivateKey.generate()
        for answer in (False, True):
            signed = signing.sign(context, message)
            seal.seal(box.public, message, b"info")
            box.unseal(sealed, b"info")
            signing.public.verify(context, message, signed)
            if not answer:
                reply, _ = kem.encapsulate(ephemeral.public)
        return ephemeral.decapsulate(reply)

    calls: dict[str, tuple[str, Callable[[], object]]] = {
        "kem_keygen": ("X25519 + ML-KEM-768: make a key", kem.PrivateKey.generate),
        "kem_encapsulate": ("X25519 + ML-KEM-768: encapsulate", lambda: kem.encapsulate(private.public)),
        "kem_decapsulate": ("X25519 + ML-KEM-768: decapsulate", lambda: private.decapsulate(ciphertext)),
        "sign": ("Ed25519 + ML-DSA-65: sign", lambda: signing.sign(context, message)),
        "verify": ("Ed25519 + ML-DSA-65: verify", lambda: signing.public.verify(context, message, signature)),
        "seal_message": ("HPKE: seal a message", lambda: seal.seal(box.public, message, b"info")),
        "unseal_message": ("HPKE: unseal a message", lambda: box.unseal(sealed, b"info")),
        "handshake_both": ("the whole handshake, both ends", everything),
    }
    for slug, (title, call) in calls.items():
        recorder.step("handshake", title)
        each = tuple(seconds * 1e3 for seconds in seconds_each(_one(call), plan))
        recorder.figure(Figure("handshake", slug, title, "ms", LESS, each))


def _one(call: Callable[[], object]) -> Callable[[], int]:
    def batch() -> int:
        call()
        return 1

    return batch
