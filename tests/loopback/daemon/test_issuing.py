"""A person who changes a member waits until the member uses it, and not for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit.renewing import Pair, message

from conflux.control.envelope import Kind
from conflux.daemon import issuing, renewal
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId


def changed(path: Path) -> tuple[Pair, NodeId]:
    pair = Pair(path)
    node = pair.kitchen.renewal.member.node_id
    assert pair.gate.issuing.issuer is not None
    pair.gate.issuing.issuer.change(node, now_unix=pair.now_unix, name="cellar")
    return pair, node


async def test_who_hands_over_hears_that_the_member_uses_it(tmp_path: Path) -> None:
    pair, node = changed(tmp_path)
    handing = asyncio.create_task(pair.gate.issuing.hand_over(node, now=0.0))
    await asyncio.sleep(0)
    assert not handing.done()
    pair.gate.receive(message(node, Kind.ACK, b"", re=1))
    assert await handing


async def test_a_member_that_is_silent_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, node = changed(tmp_path)
    monkeypatch.setattr(issuing, "HAND_OVER_S", 0.0)
    assert not await pair.gate.issuing.hand_over(node, now=0.0)
    assert pair.gate.issuing._awaited == {}


async def test_an_issuer_waits_not_at_all_for_itself(tmp_path: Path) -> None:
    pair, _ = changed(tmp_path)
    assert await pair.gate.issuing.hand_over(pair.gate.renewal.member.node_id, now=0.0)


async def test_who_is_no_issuer_hands_nothing_over(tmp_path: Path) -> None:
    pair, node = changed(tmp_path)
    with pytest.raises(RemoteProtocolError, match="not-issuer"):
        await pair.kitchen.issuing.hand_over(node, now=0.0)


async def test_a_node_that_leaves_hears_that_its_issuer_knows(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    node = pair.kitchen.renewal.member.node_id
    leaving = asyncio.create_task(pair.kitchen.renewal.leave())
    await asyncio.sleep(0)
    to, kind, body = pair.kitchen.asked[-1]
    pair.gate.receive(message(node, kind, body))
    assert pair.gate.answered.pop() == (Kind.ACK, b"")
    assert not pair.kitchen.renewal.acknowledged(message(NodeId(b"x" * 16), Kind.ACK, b"", re=1)), "not of the issuer"
    assert pair.kitchen.renewal.acknowledged(message(to, Kind.ACK, b"", re=1))
    assert await leaving
    assert pair.gate.issuing.issuer is not None
    assert {entry.end for entry in pair.gate.issuing.issuer._records.issued()} == {"", "left"}


async def test_a_node_leaves_without_its_issuer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "LEAVE_S", 0.0)
    pair = Pair(tmp_path)
    assert not await pair.kitchen.renewal.leave()
    assert not await pair.gate.renewal.leave()
    assert pair.gate.asked == [], "an issuer has nobody to tell"
