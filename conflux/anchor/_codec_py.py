"""The frame codec in Python: readable, and the oracle of the compiled codec's tests.

It runs only with CONFLUX_PURE=1.  Names, results, errors and their order are those of cext/anchor/codec.pyx.  It is
slow, and it cannot wipe the memory of a key that it forgets.
"""

from __future__ import annotations

import struct
from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from conflux.anchor import frame as f
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

_HEADER = struct.Struct(">BBBBIQ")  # version, flags, epoch, reserved, label, counter
_ENTRY = struct.Struct(">BH")  # kind, length of the body

_Cipher = AESGCM | ChaCha20Poly1305


def peek(frame: bytes) -> tuple[int, int, int, int]:
    """Return flags, epoch, label and counter of a frame, none of them authenticated.

    Raises RemoteProtocolError: truncated, oversized, version, reserved.
    """
    if len(frame) < f.HEADER_BYTES + f.TAG_BYTES:
        raise RemoteProtocolError("truncated")
    if len(frame) > f.FRAME_BYTES_MAX:
        raise RemoteProtocolError("oversized")
    version, flags, epoch, reserved, label, counter = _HEADER.unpack_from(frame)
    if version != f.VERSION:
        raise RemoteProtocolError("version")
    if reserved != 0 or flags & ~(f.CE | f.FEEDBACK):
        raise RemoteProtocolError("reserved")
    return flags, epoch, label, counter


def relabel(frame: bytes, label: int, congestion: bool) -> bytes:
    """Return the frame with the next hop's label; congestion sets the mark; a mark that is set stays.

    Raises RemoteProtocolError as peek() does, LocalProtocolError for a label that does not fit 32 bits.
    """
    flags, epoch, _, counter = peek(frame)
    if not 0 <= label < 2**32:
        raise LocalProtocolError("label out of range")
    if congestion:
        flags |= f.CE
    return _HEADER.pack(f.VERSION, flags, epoch, 0, label, counter) + frame[f.HEADER_BYTES :]


@final
class ReplayWindow:
    """Which of the newest 8192 counters were seen; older ones count as seen."""

    def __init__(self) -> None:
        self._next = 0  # highest seen + 1
        self._seen: set[int] = set()

    @property
    def highest(self) -> int:
        """The highest counter seen; -1: none was."""
        return self._next - 1

    def check(self, counter: int) -> bool:
        """Say whether a frame with this counter may be accepted.  Raises OverflowError beyond 64 bits."""
        _check_counter(counter)
        if counter == f.COUNTER_END or counter + f.REPLAY_WINDOW_COUNT < self._next:
            return False
        return counter not in self._seen

    def update(self, counter: int) -> None:
        """Take a counter as seen.  No-op if check() refuses it."""
        if not self.check(counter):
            return
        if counter >= self._next + f.REPLAY_WINDOW_COUNT:
            self._seen.clear()
        else:  # moving ahead by n leaves n counters behind
            left_behind = range(self._next - f.REPLAY_WINDOW_COUNT, counter + 1 - f.REPLAY_WINDOW_COUNT)
            self._seen.difference_update(left_behind)
        self._next = max(self._next, counter + 1)
        self._seen.add(counter)


def _check_counter(counter: int) -> None:
    if not 0 <= counter < 2**64:
        raise OverflowError("a counter has 64 bits")


@final
class Sender:
    """Seals the frames of one epoch in one direction; every frame takes the next counter, from 0.

    aead: frame.AES_256_GCM or CHACHA20_POLY1305.  key: 32 bytes.  nonce_prefix: 4 bytes.  epoch: 0 to 255.
    Raises LocalProtocolError for anything else.
    """

    def __init__(self, aead: int, key: bytes, nonce_prefix: bytes, epoch: int) -> None:
        self._cipher: _Cipher | None = _cipher(aead, key, nonce_prefix, epoch)
        self._prefix = nonce_prefix
        self._epoch = epoch
        self._counter = 0
        self._bytes_sealed = 0

    @property
    def counter(self) -> int:
        """The counter the next frame will carry."""
        return self._counter

    @property
    def bytes_sealed(self) -> int:
        """How many bytes of bundles were sealed under this key."""
        return self._bytes_sealed

    def seal(self, label: int, flags: int, entries: list[tuple[int, bytes]]) -> bytes:
        """Return a whole frame with these (kind, body) entries.

        Raises LocalProtocolError, and takes no counter, for a label, flag, kind or body that no peer would accept, for
        a bundle above 65504 bytes, and once the counters are used up or the key is erased.
        """
        if self._cipher is None:
            raise LocalProtocolError("the key was erased")
        if not 0 <= label < 2**32:
            raise LocalProtocolError("label out of range")
        if not 0 <= flags <= f.CE | f.FEEDBACK:
            raise LocalProtocolError("unknown flags")
        for kind, body in entries:
            if kind not in f.KINDS:
                raise LocalProtocolError("unknown entry kind")
            if len(body) < f.BODY_BYTES_MIN.get(kind, 0):
                raise LocalProtocolError("entry without a packet")
        size = sum(f.ENTRY_HEADER_BYTES + len(body) for _, body in entries)
        if size > f.BUNDLE_BYTES_MAX:
            raise LocalProtocolError("bundle too large")
        if self._counter == f.COUNTER_END:
            raise LocalProtocolError("counter used up")
        counter = self._counter
        self._counter += 1
        self._bytes_sealed += size
        bundle = b"".join(_ENTRY.pack(kind, len(body)) + body for kind, body in entries)
        sealed = self._cipher.encrypt(_nonce(self._prefix, counter), bundle, _additional(flags, self._epoch, counter))
        return _HEADER.pack(f.VERSION, flags, self._epoch, 0, label, counter) + sealed

    def erase(self) -> None:
        """Forget the key: nothing can be sealed any more.  May be called again."""
        self._cipher = None
        self._prefix = b""


@final
class Receiver:
    """Opens the frames of one epoch in one direction, each counter once.  The arguments are those of Sender."""

    def __init__(self, aead: int, key: bytes, nonce_prefix: bytes, epoch: int) -> None:
        self._cipher: _Cipher | None = _cipher(aead, key, nonce_prefix, epoch)
        self._prefix = nonce_prefix
        self._epoch = epoch
        self._window = ReplayWindow()
        self._received = 0
        self._marked = 0

    @property
    def highest(self) -> int:
        """The highest counter of a verified frame; -1: there was none."""
        return self._window.highest

    @property
    def received(self) -> int:
        """How many frames were verified."""
        return self._received

    @property
    def marked(self) -> int:
        """How many of them were marked "congestion experienced"."""
        return self._marked

    def unseal(self, frame: bytes) -> list[tuple[int, bytes]]:
        """Return the (kind, body) entries of one frame.

        Raises RemoteProtocolError.  After truncated, oversized, version, reserved, epoch, replay and auth (AuthError)
        nothing has changed.  After malformed and unknown-kind the frame counts: it was verified, and its sender is at
        fault.  Raises LocalProtocolError once the key is erased.
        """
        if self._cipher is None:
            raise LocalProtocolError("the key was erased")
        flags, epoch, _, counter = peek(frame)
        if epoch != self._epoch:
            raise RemoteProtocolError("epoch")
        if not self._window.check(counter):
            raise RemoteProtocolError("replay")
        sealed = frame[f.HEADER_BYTES :]
        try:
            bundle = self._cipher.decrypt(_nonce(self._prefix, counter), sealed, _additional(flags, epoch, counter))
        except InvalidTag:
            raise AuthError from None
        # Not before: a forged counter must not move the window past genuine frames.
        self._window.update(counter)
        self._received += 1
        self._marked += flags & f.CE
        return _parse_untrusted(bundle)

    def erase(self) -> None:
        """Forget the key: nothing can be opened any more.  May be called again."""
        self._cipher = None
        self._prefix = b""


def _cipher(aead: int, key: bytes, nonce_prefix: bytes, epoch: int) -> _Cipher:
    if len(key) != f.KEY_BYTES:
        raise LocalProtocolError("a key has 32 bytes")
    if len(nonce_prefix) != f.NONCE_PREFIX_BYTES:
        raise LocalProtocolError("a nonce prefix has 4 bytes")
    if not 0 <= epoch <= 255:
        raise LocalProtocolError("epoch out of range")
    if aead == f.AES_256_GCM:
        return AESGCM(key)
    if aead == f.CHACHA20_POLY1305:
        return ChaCha20Poly1305(key)
    raise LocalProtocolError("unknown AEAD")


def _nonce(prefix: bytes, counter: int) -> bytes:
    return prefix + counter.to_bytes(8, "big")


def _additional(flags: int, epoch: int, counter: int) -> bytes:
    return _HEADER.pack(f.VERSION, flags & ~f.CE, epoch, 0, 0, counter)


def _parse_untrusted(bundle: bytes) -> list[tuple[int, bytes]]:
    """Return the entries in order.  Raises RemoteProtocolError for the first fault."""
    entries = []
    position = 0
    while position < len(bundle):
        if len(bundle) - position < f.ENTRY_HEADER_BYTES:
            raise RemoteProtocolError("malformed")
        kind, size = _ENTRY.unpack_from(bundle, position)
        position += f.ENTRY_HEADER_BYTES
        if kind not in f.KINDS:
            raise RemoteProtocolError("unknown-kind")
        if size > len(bundle) - position or size < f.BODY_BYTES_MIN.get(kind, 0):
            raise RemoteProtocolError("malformed")
        entries.append((kind, bundle[position : position + size]))
        position += size
    return entries
