"""A person at the socket of a node of kit.boards: asks through the operations, and gets what a client would get."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kit.boards import Board

from conflux.api.operations import Operations
from conflux.api.rows import Relaying
from conflux.api.server import encode
from conflux.api.usage import BudgetRow
from conflux.control.channel import ChannelState, NeighbourStatus
from conflux.errors import UserError
from conflux.ids import format_node_id


class Person:
    """A person at a board's socket.  Every other board is a LAN neighbour."""

    def __init__(self, board: Board, *others: Board, **changed: Any) -> None:
        neighbours = tuple(
            NeighbourStatus(
                node=format_node_id(other.member.node_id),
                name=other.member.name,
                address="127.0.0.1",
                lan=None,
                bridging=False,
                dialled=True,
                age_s=9.0,
                heard_s=0.5,
                addresses=tuple(map(str, other.member.addresses)),
                expires_at=other.member.chain.not_after,
            )
            for other in others
        )
        channel = SimpleNamespace(
            name="lan", far=False, state=ChannelState(True, ""), status=lambda: neighbours, departed=lambda: ()
        )
        given: dict[str, Any] = {
            "pump": board.pump,
            "channels": [channel],
            "tun": None,
            "device": None,
            "relaying": lambda: Relaying.ON,
            "warnings": list,
            "hand_over": None,
            "usage": None,
            "budget": lambda: BudgetRow("under", None, None, 1, 0, 0, ()),
            "leave": None,
            "reload": None,
            "look_at_broker": None,
            "look_at_policy": None,
            "feed": board.feed,
            "echo": board.echo,
            "api_drops": {},
            "find_issued": lambda target: None,
            "revoke": lambda node, reason: None,
            "stop": lambda: None,
            "started_at": 0.0,
        }
        self.operations = Operations(**(given | changed)).table()

    async def ask(self, do: str, **arguments: object) -> Any:
        """Return the answer to one request, as a client reads it."""
        operation = self.operations[do]
        assert operation.call is not None
        return json.loads(encode(await operation.call(self._whole(do, arguments))))

    async def items(self, do: str, **arguments: object) -> list[Any]:
        """Return the items of one request, as a client reads them."""
        operation = self.operations[do]
        assert operation.stream is not None
        return [json.loads(encode(item)) async for item in operation.stream(self._whole(do, arguments))]

    async def refused(self, do: str, **arguments: object) -> str:
        """Return the text of the error that one request ends with."""
        question = self.ask if self.operations[do].call is not None else self.items
        with pytest.raises(UserError) as caught:
            await question(do, **arguments)
        return str(caught.value)

    def _whole(self, do: str, arguments: dict[str, object]) -> dict[str, object]:
        defaults = {name: argument.default for name, argument in self.operations[do].arguments.items()}
        return defaults | arguments
