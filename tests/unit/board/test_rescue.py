"""What is packed of a damaged data partition: the keys above all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from conflux.board import rescue


def record(text: bytes) -> bytes:
    """Return text as the state directory keeps it."""
    return text + hashlib.sha256(text).digest()[: rescue.CHECK_BYTES]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data partition with more in it than a rescue takes, which sorts before the keys."""
    top = tmp_path / "data"
    for folder in ("conflux/invites", "conflux/issued", "conflux/spare", "board/ssh"):
        (top / folder).mkdir(parents=True)
    for count in range(20):
        (top / f"conflux/invites/{count}").write_bytes(bytes(rescue.FILE_BYTES_MAX))
    (top / "board/ssh/ssh_host_ed25519_key").write_bytes(b"host key")
    return top


@pytest.mark.parametrize("name", ["node.key", "spare/node.key"])
def test_the_keys_are_in_it_whatever_else_there_is(data, tmp_path, name):
    (data / "conflux" / name).write_bytes(record(b"key"))
    (data / "conflux/root.key").write_bytes(record(b"root"))
    packed = rescue.packed(data, ["conflux", "board"])
    assert len(packed) <= rescue.BYTES_MAX
    assert rescue.is_whole(packed)
    assert rescue.keeps_identity(packed, "conflux")
    rescue.unpack(packed, tmp_path / "new")
    assert rescue.has_identity(tmp_path / "new/conflux")
    assert (tmp_path / "new/conflux/root.key").read_bytes() == record(b"root")
    assert (tmp_path / "new/board/ssh/ssh_host_ed25519_key").read_bytes() == b"host key"


@pytest.mark.parametrize("content", [b"", b"key", record(b"key")[:-1] + b"?"])
def test_a_rescue_without_a_key_that_is_whole_keeps_no_identity(data, content):
    assert not rescue.keeps_identity(rescue.packed(data, ["conflux"]), "conflux")
    (data / "conflux/node.key").write_bytes(content)
    assert not rescue.keeps_identity(rescue.packed(data, ["conflux"]), "conflux")
