"""Sizes in conflux.toml: "50 MB"."""

import pytest

from conflux.config.checks import SIZE_BYTES_MAX, SIZE_BYTES_MIN, Refused, size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("50 MB", 50_000_000),
        ("50MB", 50_000_000),
        ("1.5 GB", 1_500_000_000),
        ("100 kB", SIZE_BYTES_MIN),
        ("1000 TB", SIZE_BYTES_MAX),
        ("1 GiB", 2**30),
        ("256 mib", 2**28),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    "value",
    ["50", 50_000_000, "MB", "50 Mbit", "-1 GB", "1e3 GB", "99 kB", "1001 TB", "9999999 GB", "1.2345 GB", "50  MB",
     " 1 GB", "1 GB ", "\u0661 GB", "", None, True, ["1 GB"]],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(Refused, match="size"):
        size(value)
