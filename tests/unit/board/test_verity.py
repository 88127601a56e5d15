"""The hash tree over the content of a bundle."""

from __future__ import annotations

from hashlib import sha256

import pytest

from conflux.board.verity import BLOCK_BYTES, Tree, root_of

SALT = bytes(range(32))


def plain(blocks: list[bytes]) -> bytes:
    """The same, level by level, as the kernel's documentation has it."""
    hashes = [sha256(SALT + block).digest() for block in blocks]
    while True:
        packed = [b"".join(hashes[at : at + 128]).ljust(BLOCK_BYTES, b"\0") for at in range(0, len(hashes), 128)]
        hashes = [sha256(SALT + block).digest() for block in packed]
        if len(hashes) == 1:
            return hashes[0]


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 255, 256, 257, 128 * 128 - 1, 128 * 128, 128 * 128 + 1])
def test_the_root_is_that_of_the_levels(count):
    blocks = [number.to_bytes(4, "big") * (BLOCK_BYTES // 4) for number in range(count)]
    assert root_of(blocks, SALT) == plain(blocks)


def test_every_block_counts():
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(130)]
    for number in (0, 63, 127, 128, 129):
        changed = list(blocks)
        changed[number] = bytes([changed[number][0] ^ 1]) + changed[number][1:]
        assert root_of(changed, SALT) != root_of(blocks, SALT)


def test_half_a_block_is_none():
    with pytest.raises(ValueError, match="cut short"):
        Tree(SALT).add(bytes(BLOCK_BYTES - 1))


def test_no_block_has_no_root():
    with pytest.raises(ValueError, match="no block"):
        Tree(SALT).root()
