# Conversions between Python's values and those of engine.h: networks, keys, hops, addresses, times.  They know no
# engine.  engine.pyx includes them because a .pxd cannot import the errors that they raise.

cdef uint64_t nanoseconds(double seconds):
    return <uint64_t>(seconds * 1e9)


cdef double seconds(uint64_t nanoseconds):
    return <double>nanoseconds / 1e9


cdef int read_entropy(object entropy, uint8_t *out, size_t size) except -1:
    """Draw size random bytes."""
    cdef bytes drawn = entropy(size)
    if <size_t>len(drawn) != size:
        raise LocalProtocolError("less entropy than asked for")
    memcpy(out, <const uint8_t *>drawn, size)
    return 0


cdef int read_start(bytes start, uint8_t *out) except -1:
    """Read one end's start of an SCTP association."""
    if len(start) != 8:
        raise LocalProtocolError("a start has 8 bytes")
    memcpy(out, <const uint8_t *>start, 8)
    return 0


cdef int read_networks(object networks, engine_network *out) except -1:
    """Read (packed address, packed mask) pairs; return how many."""
    cdef int count = 0
    cdef bytes address, mask
    for address, mask in networks:
        if count == ENGINE_NETWORK_COUNT_MAX:
            raise LocalProtocolError("too many networks")
        if len(address) not in (4, 16) or len(mask) != len(address):
            raise LocalProtocolError("an address has 4 or 16 bytes")
        memset(&out[count], 0, sizeof(engine_network))
        memcpy(out[count].address, <const uint8_t *>address, len(address))
        memcpy(out[count].mask, <const uint8_t *>mask, len(mask))
        out[count].address_bytes = <uint8_t>len(address)
        count += 1
    return count


cdef int read_key(object key, engine_key *out) except -1:
    """Read an EpochKey."""
    cdef bytes secret = key.key, prefix = key.nonce_prefix
    if len(secret) != 32 or len(prefix) != 4:
        raise LocalProtocolError("a key has 32 bytes, a nonce prefix 4")
    out.epoch = key.epoch
    out.aead = key.aead
    memcpy(out.key, <const uint8_t *>secret, 32)
    memcpy(out.nonce_prefix, <const uint8_t *>prefix, 4)
    return 0


cdef relay_hop read_hop(object hop) except *:
    """Read a Hop."""
    cdef relay_hop out
    out.link = hop.link
    out.tether = int.from_bytes(hop.tether, "big")
    out.channel_count = hop.channel_count
    out.label_out = hop.label_out
    out.label_in = hop.label_in
    return out


cdef int read_dtls_keys(object keys, dtls_keys *out) except -1:
    """Read a carrier.wire.DtlsKeys."""
    cdef bytes part
    memset(out, 0, sizeof(dtls_keys))
    if max(len(keys.key_out), len(keys.key_in)) > 32 or max(len(keys.iv_out), len(keys.iv_in)) > 12:
        raise LocalProtocolError("keys that fit no cipher")
    out.cipher = keys.cipher
    out.sequence_out = keys.sequence_out
    part = keys.key_out
    memcpy(out.key_out, <const uint8_t *>part, len(part))
    part = keys.key_in
    memcpy(out.key_in, <const uint8_t *>part, len(part))
    part = keys.iv_out
    memcpy(out.iv_out, <const uint8_t *>part, len(part))
    part = keys.iv_in
    memcpy(out.iv_in, <const uint8_t *>part, len(part))
    return 0


cdef int read_password(bytes password, stun_password *out) except -1:
    """Read an ICE password."""
    if len(password) > STUN_PASSWORD_BYTES_MAX:
        raise LocalProtocolError("an ICE password has 256 bytes at most")
    memset(out, 0, sizeof(stun_password))
    memcpy(out.text, <const uint8_t *>password, len(password))
    out.size = len(password)
    return 0


cdef object read_address(const uint8_t *data, uint32_t size):
    """Return (host, port) of a struct sockaddr, or None."""
    cdef uint16_t family = 0
    if size < 2:
        return None
    memcpy(&family, data, 2)
    cdef int port = data[2] << 8 | data[3]
    if family == socket.AF_INET and size >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), port
    if family == socket.AF_INET6 and size >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), port
    return None


cdef uint32_t write_address(object address, uint8_t *out) except *:
    """Write (host, port[, flow, scope]) as a struct sockaddr; return its size, 0 for None."""
    cdef uint16_t family
    cdef bytes packed
    cdef uint32_t scope
    if address is None:
        return 0
    host, port = address[0], address[1]
    memset(out, 0, ENGINE_ADDRESS_BYTES)
    out[2], out[3] = port >> 8 & 255, port & 255
    if ":" in host:
        host, _, zone = host.partition("%")
        family = socket.AF_INET6
        packed = socket.inet_pton(socket.AF_INET6, host)
        memcpy(out + 8, <const uint8_t *>packed, 16)
        scope = address[3] if len(address) > 3 else (socket.if_nametoindex(zone) if zone else 0)
        memcpy(out + 24, &scope, 4)
        memcpy(out, &family, 2)
        return ENGINE_ADDRESS_BYTES
    family = socket.AF_INET
    packed = socket.inet_pton(socket.AF_INET, host)
    memcpy(out + 4, <const uint8_t *>packed, 4)
    memcpy(out, &family, 2)
    return 16
