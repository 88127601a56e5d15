"""The file with the SHA-256 beside an image."""

from __future__ import annotations

import pytest

from conflux.board.image import parse_sums

DIGEST = "ab" * 32
OTHER = "cd" * 32


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  a.img.zst\n",
        f"{DIGEST} *a.img.zst\n",
        f"{DIGEST.upper()}  build/image/a.img.zst",
        f"{DIGEST}\n",
        f"{OTHER}  b.img.zst\n{DIGEST}  a.img.zst\n",
    ],
)
def test_the_line_of_the_image_counts(text):
    assert parse_sums(text, "a.img.zst") == DIGEST


@pytest.mark.parametrize(
    "text", ["", "nonsense", f"{OTHER}  b.img.zst", f"{'zz' * 32}  a.img.zst", f"{DIGEST[1:]}  a.img.zst"]
)
def test_without_such_a_line_there_is_none(text):
    assert parse_sums(text, "a.img.zst") is None
