"""Any bytes either decode to something that encodes to the same bytes, or raise RemoteProtocolError."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from conflux import record
from conflux.errors import RemoteProtocolError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=6),
    max_leaves=30,
)


@given(VALUES)
def test_every_value_comes_back(value):
    try:
        encoded = record.encode(value)
    except UnicodeEncodeError:
        return  # a lone surrogate is not text
    try:
        assert record.decode_untrusted(encoded, bytes_max=10**6) == value
    except RemoteProtocolError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017  # the one bound a small value can break


@given(st.binary(max_size=200))
@example(bytes.fromhex("82016161"))
def test_any_bytes_decode_canonically_or_are_refused(data):
    try:
        value = record.decode_untrusted(data, bytes_max=200)
    except RemoteProtocolError:
        return
    assert record.encode(value) == data
