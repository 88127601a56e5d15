"""A realm's broker in the daemon: announced by the issuer, followed by members, left again; nothing of it restarts."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kit.recorder import Recorder
from kit.renewing import Pair, Party, exchange

from conflux.config.settings import NatsSettings
from conflux.control.envelope import Kind
from conflux.control.nats.config import NatsConfig
from conflux.crypto.nkey import KeyPair
from conflux.crypto.nkey import Kind as KeyKind
from conflux.daemon.brokering import ASK_AGAIN_S_MIN, ASK_S_MAX, Brokering
from conflux.daemon.revoking import Revocation
from conflux.errors import ConfigError
from conflux.realm.broker.users import Signer
from conflux.realm.lists import BrokerNotice, ListKind, SignedList
from conflux.state.broker_files import save_notice, save_signer, wanted_notice
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of

NOTICE = BrokerNotice(("tls://192.0.2.1:4222", "tls://[2001:db8::1]:4222"), b"", "main")
OTHER = BrokerNotice(("tls://192.0.2.2:4222",), b"", "yard")
DEFAULT = NatsSettings()
NONE = BrokerNotice((), b"", "main")


class Pump:
    """Where channels come and go."""

    def __init__(self) -> None:
        self.channels: list[Recorder] = []
        self.at = 0.0

    def now(self) -> float:
        return self.at

    async def add(self, channel: Recorder) -> None:
        self.channels.append(channel)

    async def remove(self, channel: Recorder) -> None:
        self.channels.remove(channel)


class Node:
    """One node's part, with what it made channels of.  signed: what it told the realm."""

    def __init__(self, party: Party, path: Path, settings: NatsSettings = DEFAULT) -> None:
        self.party = party
        self.state = StateDir.open(path, create=True)
        self.pump = Pump()
        self.signed: list[SignedList] = []
        self.configs: list[NatsConfig] = []
        self.fault: Exception | None = None
        self.revocation = Revocation(self.state, party.renewal.member, party.clock)
        self.revocation.publish = self.publish
        self.brokering = Brokering(
            self.state,
            settings,
            revocation=self.revocation,
            renewal=party.renewal,
            issuing=party.issuing,
            pump=self.pump,
            clock=party.clock,
            make=self.make,
            rng=random.Random(3),
        )
        self.revocation.noted = self.brokering.look

    def publish(self, signed: SignedList) -> None:
        self.signed.append(signed)
        self.revocation.book.learn(signed)

    def make(self, config: NatsConfig) -> Recorder:
        if self.fault is not None:
            raise self.fault
        self.configs.append(config)
        return Recorder("nats", far=True)

    async def look(self) -> None:
        """Have it look, and wait until it has."""
        self.brokering.look()
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def nodes(path: Path, settings: NatsSettings = DEFAULT):
    """The founder and a member, whose state directory is not that of the founder."""
    pair = Pair(path / "gate")
    gate, kitchen = Node(pair.gate, path / "gate"), Node(pair.kitchen, path / "kitchen", settings)
    tasks = [asyncio.create_task(node.brokering.run()) for node in (gate, kitchen)]
    await gate.look()
    yield pair, gate, kitchen
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), ended


def set_up(pair: Pair, gate: Node, notice: BrokerNotice = NOTICE) -> None:
    """Leave in the founder's state directory what `conflux control init` does."""
    account, key = (KeyPair.generate(KeyKind.ACCOUNT) for _ in range(2))
    save_signer(gate.state, pair.gate.renewal.member.realm_id, Signer(account.public, key))
    save_notice(gate.state, notice)
    pair.gate.issuing._look = lambda: issuer_of(gate.state, pair.gate.renewal.member)


async def test_issuer_signs_what_was_left_for_it_and_tells_the_realm_once(tmp_path):
    async with nodes(tmp_path) as (pair, gate, _):
        set_up(pair, gate)
        await gate.look()
        await gate.look()
        (signed,) = gate.signed
        assert (signed.broker(), signed.kind) == (NOTICE, ListKind.BROKER)
        signed.verify(pair.gate.renewal.member.anchor, now_unix=pair.now_unix)
        assert wanted_notice(gate.state) is None


async def test_issuer_admits_itself_without_being_asked(tmp_path):
    async with nodes(tmp_path) as (pair, gate, _):
        assert not pair.gate.renewal.member.chain.credential.nats_jwt
        set_up(pair, gate)
        await gate.look()
        assert pair.gate.renewal.member.chain.credential.nats_jwt
        assert len(pair.gate.adopted) == 1
        await gate.look()
        assert len(pair.gate.adopted) == 1


async def test_member_follows_the_notice_to_other_servers_and_away(tmp_path):
    async with nodes(tmp_path) as (pair, gate, kitchen):
        for notice, channel_count in ((NOTICE, 1), (OTHER, 1), (NONE, 0), (NOTICE, 1)):
            set_up_again = set_up if not gate.signed else lambda _, gate, notice: save_notice(gate.state, notice)
            set_up_again(pair, gate, notice)
            await gate.look()
            kitchen.revocation.book.learn(gate.signed[-1])
            await kitchen.look()
            assert len(kitchen.pump.channels) == channel_count
        assert [config.servers for config in kitchen.configs] == [
            (("192.0.2.1", 4222), ("2001:db8::1", 4222)),
            (("192.0.2.2", 4222),),
            (("192.0.2.1", 4222), ("2001:db8::1", 4222)),
        ]
        assert [config.area for config in kitchen.configs] == ["main", "yard", "main"]
        anchor = pair.kitchen.renewal.member.anchor
        assert kitchen.configs[0].overlay == (anchor.ipv6_prefix, anchor.ipv4_prefix)


@pytest.mark.parametrize(
    "settings", [NatsSettings(enabled=False), NatsSettings(servers=(("nats.example.org", 4222),))], ids=["off", "named"]
)
async def test_what_a_person_configured_wins(tmp_path, settings):
    async with nodes(tmp_path, settings) as (pair, gate, kitchen):
        set_up(pair, gate)
        await gate.look()
        kitchen.revocation.book.learn(gate.signed[-1])
        await kitchen.look()
        assert kitchen.pump.channels == []


async def test_member_without_an_admission_asks_soon_and_then_more_and_more_rarely(tmp_path):
    async with nodes(tmp_path) as (pair, gate, kitchen):
        await kitchen.look()
        assert pair.kitchen.asked == [], "there is no broker"
        set_up(pair, gate)
        await gate.look()
        kitchen.revocation.book.learn(gate.signed[-1])
        asked_at: list[float] = []
        while len(asked_at) < 4:
            count = len(pair.kitchen.asked)
            await kitchen.look()
            if len(pair.kitchen.asked) > count:
                asked_at.append(kitchen.pump.at)
            kitchen.pump.at += 0.5
        assert asked_at[0] <= ASK_S_MAX + 0.5
        gaps = [after - before for before, after in itertools.pairwise(asked_at)]
        for gap, least in zip(gaps, (ASK_AGAIN_S_MIN, 2 * ASK_AGAIN_S_MIN, 4 * ASK_AGAIN_S_MIN), strict=True):
            assert least <= gap <= 2 * least + 0.5
        assert pair.kitchen.asked[-1][1] is Kind.RENEW
        exchange(pair)
        assert pair.kitchen.renewal.member.chain.credential.nats_jwt
        count = len(pair.kitchen.asked)
        kitchen.pump.at += 1e6
        await kitchen.look()
        assert len(pair.kitchen.asked) == count


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ModuleNotFoundError("no module"), "it can be used from the next start on"),
        (PermissionError("not yours"), "it can be used from the next start on"),
        (ConfigError("control.nats.ca: no certificate"), "what the realm says of it is of no use"),
    ],
)
async def test_broker_that_cannot_be_used_is_told_and_not_tried_all_the_time(tmp_path, fault, words):
    async with nodes(tmp_path) as (pair, gate, kitchen):
        kitchen.fault = fault
        set_up(pair, gate)
        await gate.look()
        kitchen.revocation.book.learn(gate.signed[-1])
        await kitchen.look()
        assert words in kitchen.brokering.warnings()[0]
        kitchen.fault = None
        await kitchen.look()
        assert kitchen.configs == []


@pytest.mark.parametrize(
    "notice",
    [BrokerNotice(("tls://192.0.2.1:99999",), b"", "main"), BrokerNotice(NOTICE.servers, b"", "x" * 60)],
    ids=["port", "area"],
)
async def test_notice_that_no_node_can_follow_does_no_harm(tmp_path, notice):
    async with nodes(tmp_path) as (pair, gate, kitchen):
        set_up(pair, gate, notice)
        await gate.look()
        kitchen.revocation.book.learn(gate.signed[-1])
        await kitchen.look()
        assert kitchen.pump.channels == []
