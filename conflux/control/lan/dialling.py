"""Dialling nodes of the realm: every address of a target, the handshake, and which addresses are left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from conflux.control.drop import Drop
from conflux.control.lan.acquaintances import Acquaintance
from conflux.control.lan.certificate import client_context
from conflux.control.lan.config import DIAL_S_MAX, HANDSHAKE_S, LanConfig, Place
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import TRIED_COUNT_MAX, Address, open_connection, race, underlay_addresses
from conflux.control.lan.handshake import Ourselves, Peer, TwinError
from conflux.control.lan.introduction import Introductions
from conflux.control.lan.target import Shunned, Target
from conflux.control.lan.telling import Telling
from conflux.control.lan.twins import Twins
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId

log = logging.getLogger(__name__)

QUIET_S = 600.0  # between two dials of a node that is revoked: it is a member again if the root denies who denied it


class Dialling:
    """Makes connections to targets.

    introductions: do the handshakes.  told: takes the encoded signed list of a node that did
    not let this one in, because of it.  track: knows of a connection from its first byte on.  admit: takes one whose
    handshake is done.
    """

    def __init__(
        self,
        *,
        introductions: Introductions,
        config: LanConfig,
        twins: Twins,
        telling: Telling,
        drop: Callable[[str], None],
        told: Callable[[bytes], None],
        track: Callable[[Connection], None],
        admit: Callable[[Connection, Peer], None],
    ) -> None:
        self._introductions = introductions
        self._config = config
        self._twins = twins
        self._telling = telling
        self._drop = drop
        self._told = told
        self._track = track
        self._admit = admit
        self._quiet_until = 0.0  # if this node itself is revoked
        self._shunned = Shunned()
        self._tried: set[Place] = set()  # at this moment
        self._client_context = client_context(meets=True)

    @property
    def _ourselves(self) -> Ourselves:
        return self._introductions.ourselves()

    def shun_none(self) -> None:
        """Leave no address alone any more: this node has another credential."""
        self._shunned.clear()

    def shuns(self, place: Place) -> bool:
        """Say whether an address is left alone for now."""
        return self._shunned.holds(place, _now())

    async def dial(self, target: Target) -> None:
        """Try every address of a target once."""
        if self._ourselves.is_revoked:
            if _now() < self._quiet_until:
                return
            self._quiet_until = _now() + QUIET_S
        addresses = await underlay_addresses(target.places, self._config)
        if target.announced:  # a configured place is dialled as its own waits have it, whatever is there
            now = _now()
            fresh = [
                address
                for address in addresses
                if address.place not in self._tried and not self._shunned.holds(address.place, now)
            ]
            if addresses and not fresh:
                self._drop(Drop.LEFT_ALONE)
            addresses = fresh
        addresses = addresses[:TRIED_COUNT_MAX]
        others: list[NodeId] = []

        async def attempt(address: Address, answered: asyncio.Event) -> tuple[Connection, Peer]:
            return await self._try(target, address, answered, others)

        places = {address.place for address in addresses}
        self._tried |= places  # before anything is awaited: other targets with these places are dialled beside this one
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                connection, peer = await race(addresses, attempt, lambda found: found[0].abort("duplicate"))
        except (OSError, RemoteProtocolError, UserError):  # told where it happened
            target.over = bool(others) and target.announced  # the announcement outlived its node, or it is this one
            return
        finally:
            self._tried -= places
        target.node, target.instance = peer.node, peer.instance
        self._admit(connection, peer)

    async def finds_twin(self, place: Place) -> bool:
        """Say whether the board at a place proves to have this node's key.  Another member there is a neighbour."""
        try:
            for address in (await underlay_addresses((place,), self._config))[:TRIED_COUNT_MAX]:
                async with asyncio.timeout(HANDSHAKE_S):
                    connection = await open_connection(address, self._client_context, asyncio.Event())
                    peer = await self._introduce(connection, None)
                self._admit(connection, peer)
        except TwinError as error:
            self._twins.met(error.boot, place)  # it may have started anew since it was met
            return True
        except (OSError, RemoteProtocolError, UserError) as error:
            log.debug("no twin at %s port %d: %s", *place, error)
        return False

    async def _try(
        self, target: Target, address: Address, answered: asyncio.Event, others: list[NodeId]
    ) -> tuple[Connection, Peer]:
        """Try one address of a target; raise what race() takes, counted, if the node is not there.

        others: gets the member that is there in its place.
        """
        host, port = address.place
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                connection = await open_connection(address, self._client_context, answered)
                peer = await self._introduce(connection, self._met(target))
        except OSError as error:  # ssl.SSLError and TimeoutError are
            log.debug("dialling %s port %d: %s", host, port, error)
            self._drop(Drop.DIAL_FAILED)
            if answered.is_set():
                self._shunned.failed(address.place, _now())
            raise
        except RemoteProtocolError as error:
            if isinstance(error, TwinError):
                self._twins.met(error.boot, address.place)
            if error.reason == Drop.SELF:
                others.append(self._ourselves.member.node_id)
            self._refused(target, address, error)
            raise
        except UserError as error:  # the floor of the clock could not be kept, or the like
            log.error("dialling %s port %d: %s", host, port, error)
            self._drop(Drop.LOCAL)
            raise
        self._shunned.proved(address.place)
        if not target.announced or peer.instance == target.instance:
            return connection, peer
        others.append(peer.node)
        self._admit(connection, peer)  # a neighbour all the same
        raise OSError("another node is there")

    def _met(self, target: Target) -> Acquaintance | None:
        """Return what both ends keep of each other, if the node of a target was met in this life of it."""
        met = self._introductions.acquaintances
        if target.instance is not None and (found := met.announced_as(target.instance)) is not None:
            return found
        return None if target.announced or target.node is None else met.of(target.node)

    async def _introduce(self, connection: Connection, met: Acquaintance | None) -> Peer:
        """Do the dialler's part of the handshake; if it fails, the connection is closed."""
        self._track(connection)
        try:
            return await self._introductions.dial(connection, met, self._is_told)
        except BaseException:
            connection.abort("handshake failed")
            raise

    def _is_told(self, signed: bytes) -> None:
        self._quiet_until = _now() + QUIET_S
        self._told(signed)

    def _refused(self, target: Target, address: Address, error: RemoteProtocolError) -> None:
        self._drop(error.reason)
        host, port = address.place
        if error.reason == Drop.TWIN:
            log.debug("%s port %d has our own key", host, port)
            return
        self._shunned.failed(address.place, _now())
        if error.reason != Drop.SELF:
            self._telling.refused(target.instance or target.places, host, port, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
