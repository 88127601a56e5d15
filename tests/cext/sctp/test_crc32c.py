import ctypes
import random


def test_the_check_value_is_crc32cs(sctp: ctypes.CDLL) -> None:
    # RFC 3720, appendix B.4, and the catalogue's check value.
    for data, expected in ((b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        assert sctp.crc32c_portable(0xFFFFFFFF, data, len(data)) ^ 0xFFFFFFFF == expected


def test_instruction_and_table_agree_at_every_size_and_alignment(sctp: ctypes.CDLL) -> None:
    best = sctp.crc32c_best()
    data = random.Random(1).randbytes(4096)
    for size in (*range(800), 1151, 1152, 1153, 1400, 4000):
        piece = data[size % 7 : size % 7 + size]
        assert best(0x12345678, piece, size) == sctp.crc32c_portable(0x12345678, piece, size)
