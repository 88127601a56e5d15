"""The pump with a near and a far channel: what the channels tell goes to the node, and what may cross does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from kit.ear import envelope, node_of
from kit.recorder import Recorder
from kit.world import relay

from conflux.control.channel import Arrival, Handoff
from conflux.control.choice import Handed
from conflux.control.event import Learnt, Transmit
from conflux.realm.credential import BRIDGE
from conflux.shell.feed import Feed
from conflux.shell.pump import Pump

ALPHA, BRAVO, PATH = node_of("alpha"), node_of("bravo"), b"p" * 32


class NodeStub:
    """Records its inputs, and gives the outputs it is given."""

    def __init__(self, *capabilities: str) -> None:
        self.member = relay("rod", *capabilities)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.outputs: dict[str, list[Any]] = {"next_transmit": [], "next_path": []}

    def destinations(self) -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("next_"):
            return lambda: self.outputs[name].pop(0) if self.outputs.get(name) else None
        return lambda *arguments, now: self.calls.append((name, arguments))


class Scene:
    """A pump with two started channels."""

    def __init__(self, *capabilities: str) -> None:
        self.node = NodeStub(*capabilities)
        self.lan = Recorder("lan", far=False, buckets=frozenset({1}))
        self.nats = Recorder("nats", far=True)
        self.failures: list[BaseException] = []
        mover = SimpleNamespace(drain=lambda destinations, now: None)
        self.pump = Pump(
            self.node,
            connect=lambda pump: mover,
            channels=[self.lan, self.nats],
            feed=Feed(),
            fail=self.failures.append,
        )
        for channel in (self.lan, self.nats):
            channel.inputs = self.pump.inputs(channel)

    async def settle(self) -> None:
        """Let the pump drain."""
        await asyncio.sleep(0)
        assert self.failures == []


async def test_what_a_far_channel_tells_goes_to_the_node():
    scene = Scene()
    scene.nats.inputs.absent(BRAVO)
    scene.nats.inputs.turned(False)
    scene.nats.inputs.turned(True)
    turns = [("channel_turned", ("nats", up)) for up in (False, True)]
    assert scene.node.calls == [("absent", (BRAVO, "nats")), *turns]
    scene.node.outputs["next_path"] = [Learnt("nats", BRAVO, PATH), Learnt("gone", ALPHA, PATH)]
    scene.pump.touch()
    await scene.settle()
    assert (scene.nats.learnt, scene.lan.learnt) == ([(BRAVO, PATH)], [])


async def test_transmit_goes_by_the_choice_and_the_node_hears_who_took_it():
    scene = Scene()
    scene.lan.says = Handoff.FORWARDED
    scene.node.outputs["next_transmit"] = [Transmit(7, envelope(BRAVO))]
    scene.pump.touch()
    await scene.settle()
    assert len(scene.lan.sent) == len(scene.nats.sent) == 1
    assert scene.node.calls == [("handoff", (7, Handed(Handoff.ACCEPTED, frozenset({"lan", "nats"}))))]


async def test_bridge_joins_its_channels_when_it_has_a_neighbour_and_the_broker():
    scene = Scene(BRIDGE)
    scene.nats.up = False
    scene.lan.inputs.changed(ALPHA, True)
    assert scene.nats.told == []
    scene.nats.up = True
    scene.nats.inputs.turned(True)
    assert (scene.lan.told, scene.nats.told) == ([frozenset()], [{1}])
    sent = envelope(BRAVO)
    scene.nats.says = Handoff.ABSENT
    arrival = Arrival(sent, ALPHA, "lan")
    scene.lan.inputs.transit(arrival)
    assert [passed.id for passed, _ in scene.nats.passed] == [sent.id]
    assert ("seek", (BRAVO, arrival)) in scene.node.calls
    own = envelope(None)
    scene.node.outputs["next_transmit"] = [Transmit(0, own)]
    scene.pump.touch()
    await scene.settle()
    scene.nats.inputs.transit(Arrival(own, None, "nats", PATH))
    assert (scene.lan.passed, scene.pump.drops) == ([], {"duplicate": 1})


async def test_renewal_that_brings_or_takes_the_capability_counts_at_once():
    scene = Scene()
    scene.lan.inputs.changed(ALPHA, True)
    scene.nats.inputs.turned(True)
    assert scene.lan.told == []
    bridge, plain = relay("rod", BRIDGE), relay("rod")
    scene.pump.adopt(bridge)
    scene.pump.adopt(plain)
    assert scene.lan.told == [frozenset(), None]
    assert scene.lan.adopted == scene.nats.adopted == [bridge, plain]
    assert [call for call in scene.node.calls if call[0] == "adopt"] == [("adopt", (bridge,)), ("adopt", (plain,))]
    await scene.settle()


async def test_channel_that_comes_later_is_used_and_crosses_and_leaves_without_a_trace():
    scene = Scene(BRIDGE)
    scene.lan.inputs.changed(ALPHA, True)
    await scene.pump.remove(scene.nats)
    assert ("channel_turned", ("nats", False)) in scene.node.calls
    assert (scene.lan.told, scene.nats.told) == ([frozenset(), None], [{1}, None])
    later = Recorder("nats", far=True)
    await scene.pump.add(later)
    later.inputs.turned(True)
    assert later.told == [{1}]
    scene.node.outputs["next_transmit"] = [Transmit(7, envelope(None))]
    scene.pump.touch()
    await scene.settle()
    assert (len(scene.lan.sent), len(later.sent), len(scene.nats.sent)) == (1, 1, 0)
