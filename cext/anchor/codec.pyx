# cython: language_level=3, binding=True, autotestdict=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False, cdivision=True
"""The frame codec, compiled: frame.h, replay.h and aead.h behind Python's types.

Names, results, errors and their order are those of conflux/anchor/_codec_py.py; read that first.

The interpreter lock is kept throughout.  To give it up for the 5 us that 16 KiB take costs 2.5 ms per frame as soon as
another thread runs Python, and would let two threads into one cipher context.  The C below needs no lock: the engine
calls it without Python.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_Check
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

__all__ = ["Receiver", "ReplayWindow", "Sender", "peek", "relabel"]


cdef extern from "anchor/frame.h" nogil:
    enum:
        HEADER_BYTES
        TAG_BYTES
        FRAME_BYTES_MAX
        BUNDLE_BYTES_MAX
        ENTRY_HEADER_BYTES
        FLAG_CE
        FLAG_FEEDBACK
        FAULT_NONE
        FAULT_EPOCH
        FAULT_REPLAY
        FAULT_AUTH
    uint8_t frame_flags(const uint8_t *frame)
    uint8_t frame_epoch(const uint8_t *frame)
    uint32_t frame_label(const uint8_t *frame)
    uint64_t frame_counter(const uint8_t *frame)
    int header_check(const uint8_t *frame, size_t size)
    void header_store(uint8_t *frame, uint8_t flags, uint8_t epoch, uint32_t label, uint64_t counter)
    bint kind_is_known(long kind)
    size_t body_size_min(long kind)
    size_t entry_size(const uint8_t *entry)
    uint8_t *entry_header_store(uint8_t *entry, uint8_t kind, uint16_t size)
    int bundle_check(const uint8_t *bundle, size_t size)

cdef extern from "anchor/replay.h" nogil:
    const uint64_t COUNTER_END
    struct replay_window:
        uint64_t next
    bint replay_check(const replay_window *window, uint64_t counter)
    void replay_update(replay_window *window, uint64_t counter)

cdef extern from "anchor/aead.h" nogil:
    enum:
        AEAD_AES_256_GCM
        AEAD_CHACHA20_POLY1305
        AEAD_KEY_BYTES
        AEAD_NONCE_PREFIX_BYTES
    struct aead:
        void *context
    bint aead_open(aead *self, int algorithm, bint sealing, const uint8_t *key, const uint8_t *nonce_prefix)
    bint aead_seal(aead *self, uint8_t *frame, size_t size)
    bint aead_unseal(aead *self, const uint8_t *frame, size_t frame_size, uint8_t *bundle)
    void aead_erase(aead *self)


# In the order of enum fault in frame.h.
cdef tuple REASONS = (
    "", "truncated", "oversized", "version", "reserved", "epoch", "replay", "auth", "malformed", "unknown-kind"
)

# Room for one bundle, kept between frames: 64 KiB per process instead of per stream.  If it is taken (by a bundle that
# is being read while a finalizer runs), take_room() allocates another.
cdef uint8_t *spare_room = NULL


cdef uint8_t *take_room() except NULL:
    global spare_room
    cdef uint8_t *room = spare_room
    spare_room = NULL
    if room == NULL:
        room = <uint8_t *>PyMem_Malloc(FRAME_BYTES_MAX)
        if room == NULL:
            raise MemoryError
    return room


cdef void give_room(uint8_t *room) noexcept:
    global spare_room
    if spare_room == NULL:
        spare_room = room
    else:
        PyMem_Free(room)


cdef object refusal(int fault):
    return AuthError() if fault == FAULT_AUTH else RemoteProtocolError(REASONS[fault])


cdef uint32_t label_of(object label) except? 0:
    try:
        return label
    except OverflowError:
        raise LocalProtocolError("label out of range") from None


cdef int open_cipher(
    aead *cipher, bint sealing, object algorithm, bytes key, bytes nonce_prefix, object epoch
) except -1:
    if len(key) != AEAD_KEY_BYTES:
        raise LocalProtocolError("a key has 32 bytes")
    if len(nonce_prefix) != AEAD_NONCE_PREFIX_BYTES:
        raise LocalProtocolError("a nonce prefix has 4 bytes")
    if not 0 <= epoch <= 255:
        raise LocalProtocolError("epoch out of range")
    if algorithm != AEAD_AES_256_GCM and algorithm != AEAD_CHACHA20_POLY1305:
        raise LocalProtocolError("unknown AEAD")
    if not aead_open(
        cipher, algorithm, sealing, <const uint8_t *>PyBytes_AS_STRING(key),
        <const uint8_t *>PyBytes_AS_STRING(nonce_prefix),
    ):
        raise LocalProtocolError("this libcrypto does not offer the AEAD")
    return 0


cdef size_t bundle_size(list entries) except? 0:
    """Return the bundle's size, after a check that a peer accepts every entry.

    No Python code runs between this and the writing of the bundle, because kinds are exact ints and bodies exact bytes:
    so the bundle that is written has this size.
    """
    cdef size_t size = 0
    cdef tuple entry
    cdef bytes body
    cdef object number
    cdef long kind
    for item in entries:
        entry = <tuple?>item
        if len(entry) != 2 or not PyLong_Check(entry[0]) or not isinstance(entry[1], bytes):
            raise TypeError("an entry is (kind, body): an int and bytes")
        try:
            kind = entry[0]
        except OverflowError:
            kind = 0
        body = <bytes>entry[1]
        if not kind_is_known(kind):
            raise LocalProtocolError("unknown entry kind")
        if <size_t>len(body) < body_size_min(kind):
            raise LocalProtocolError("entry without a packet")
        size += ENTRY_HEADER_BYTES + <size_t>len(body)
    if size > BUNDLE_BYTES_MAX:
        raise LocalProtocolError("bundle too large")
    return size


def peek(bytes frame not None):
    """Return flags, epoch, label and counter of a frame, none of them authenticated.

    Raises RemoteProtocolError: truncated, oversized, version, reserved.
    """
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(frame)
    cdef int fault = header_check(data, len(frame))
    if fault != FAULT_NONE:
        raise refusal(fault)
    return frame_flags(data), frame_epoch(data), frame_label(data), frame_counter(data)


def relabel(bytes frame not None, label, bint congestion):
    """Return the frame with the next hop's label; congestion sets the mark; a mark that is set stays.

    Raises RemoteProtocolError as peek() does, LocalProtocolError for a label that does not fit 32 bits.
    """
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(frame)
    cdef int fault = header_check(data, len(frame))
    if fault != FAULT_NONE:
        raise refusal(fault)
    cdef uint32_t label_out = label_of(label)
    cdef uint8_t flags = frame_flags(data) | (FLAG_CE if congestion else 0)
    cdef bytes out = PyBytes_FromStringAndSize(<const char *>data, len(frame))
    header_store(<uint8_t *>PyBytes_AS_STRING(out), flags, frame_epoch(data), label_out, frame_counter(data))
    return out


@cython.final
cdef class ReplayWindow:
    """Which of the newest 8192 counters were seen; older ones count as seen."""

    cdef replay_window window

    @property
    def highest(self):
        """The highest counter seen; -1: none was."""
        return int(self.window.next) - 1

    def check(self, uint64_t counter):
        """Say whether a frame with this counter may be accepted.  Raises OverflowError beyond 64 bits."""
        return replay_check(&self.window, counter)

    def update(self, uint64_t counter):
        """Take a counter as seen.  No-op if check() refuses it."""
        replay_update(&self.window, counter)


@cython.final
cdef class Sender:
    """Seals the frames of one epoch in one direction; every frame takes the next counter, from 0.

    aead: frame.AES_256_GCM or CHACHA20_POLY1305.  key: 32 bytes.  nonce_prefix: 4 bytes.  epoch: 0 to 255.
    Raises LocalProtocolError for anything else.
    """

    cdef aead cipher
    cdef uint64_t counter_next
    cdef uint64_t sealed
    cdef uint8_t epoch

    def __cinit__(self, aead, bytes key not None, bytes nonce_prefix not None, epoch):
        open_cipher(&self.cipher, True, aead, key, nonce_prefix, epoch)
        self.epoch = epoch

    def __dealloc__(self):
        aead_erase(&self.cipher)

    @property
    def counter(self):
        """The counter the next frame will carry."""
        return self.counter_next

    @property
    def bytes_sealed(self):
        """How many bytes of bundles were sealed under this key."""
        return self.sealed

    def seal(self, label, flags, list entries not None):
        """Return a whole frame with these (kind, body) entries.

        Raises LocalProtocolError, and takes no counter, for a label, flag, kind or body that no peer would accept, for
        a bundle above 65504 bytes, and once the counters are used up or the key is erased.
        """
        if self.cipher.context == NULL:
            raise LocalProtocolError("the key was erased")
        cdef uint32_t label_out = label_of(label)
        if not 0 <= flags <= FLAG_CE | FLAG_FEEDBACK:
            raise LocalProtocolError("unknown flags")
        cdef uint8_t flag_bits = flags
        cdef size_t size = bundle_size(entries)
        if self.counter_next == COUNTER_END:
            raise LocalProtocolError("counter used up")

        cdef bytes frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(HEADER_BYTES + size + TAG_BYTES))
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(frame)
        cdef uint8_t *at = out + HEADER_BYTES
        cdef tuple entry
        cdef bytes body
        header_store(out, flag_bits, self.epoch, label_out, self.counter_next)
        for item in entries:
            entry = <tuple>item
            body = <bytes>entry[1]
            at = entry_header_store(at, <uint8_t>entry[0], <uint16_t>len(body))
            memcpy(at, PyBytes_AS_STRING(body), len(body))
            at += len(body)

        # Before the sealing: even if that fails, the nonce must not be used again.
        self.counter_next += 1
        self.sealed += size
        if not aead_seal(&self.cipher, out, size):
            raise LocalProtocolError("libcrypto failed")
        return frame

    def erase(self):
        """Forget the key: nothing can be sealed any more.  May be called again."""
        aead_erase(&self.cipher)


@cython.final
cdef class Receiver:
    """Opens the frames of one epoch in one direction, each counter once.  The arguments are those of Sender."""

    cdef aead cipher
    cdef replay_window window
    cdef uint64_t received_count
    cdef uint64_t marked_count
    cdef uint8_t epoch

    def __cinit__(self, aead, bytes key not None, bytes nonce_prefix not None, epoch):
        open_cipher(&self.cipher, False, aead, key, nonce_prefix, epoch)
        self.epoch = epoch

    def __dealloc__(self):
        aead_erase(&self.cipher)

    @property
    def highest(self):
        """The highest counter of a verified frame; -1: there was none."""
        return int(self.window.next) - 1

    @property
    def received(self):
        """How many frames were verified."""
        return self.received_count

    @property
    def marked(self):
        """How many of them were marked "congestion experienced"."""
        return self.marked_count

    def unseal(self, bytes frame not None):
        """Return the (kind, body) entries of one frame.

        Raises RemoteProtocolError.  After truncated, oversized, version, reserved, epoch, replay and auth (AuthError)
        nothing has changed.  After malformed and unknown-kind the frame counts: it was verified, and its sender is at
        fault.  Raises LocalProtocolError once the key is erased.
        """
        if self.cipher.context == NULL:
            raise LocalProtocolError("the key was erased")
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(frame)
        cdef size_t frame_size = len(frame)
        cdef int fault = header_check(data, frame_size)
        if fault != FAULT_NONE:
            raise refusal(fault)
        if frame_epoch(data) != self.epoch:
            raise refusal(FAULT_EPOCH)
        if not replay_check(&self.window, frame_counter(data)):
            raise refusal(FAULT_REPLAY)

        cdef uint8_t *room = take_room()
        try:
            if not aead_unseal(&self.cipher, data, frame_size, room):
                raise refusal(FAULT_AUTH)
            # Not before: a forged counter must not move the window past genuine frames.
            replay_update(&self.window, frame_counter(data))
            self.received_count += 1
            self.marked_count += frame_flags(data) & FLAG_CE
            return read_bundle(room, frame_size - HEADER_BYTES - TAG_BYTES)
        finally:
            give_room(room)

    def erase(self):
        """Forget the key: nothing can be opened any more.  May be called again."""
        aead_erase(&self.cipher)


cdef list read_bundle(const uint8_t *bundle, size_t size):
    cdef int fault = bundle_check(bundle, size)
    if fault != FAULT_NONE:
        raise refusal(fault)
    cdef list entries = []
    cdef const uint8_t *at = bundle
    cdef const uint8_t *end = bundle + size
    cdef size_t body
    while at < end:
        body = entry_size(at)
        entries.append((
            at[0],
            PyBytes_FromStringAndSize(<const char *>at + ENTRY_HEADER_BYTES, <Py_ssize_t>body),
        ))
        at += ENTRY_HEADER_BYTES + body
    return entries
