"""Both ends of a handshake over one connection, in the form that both builds know: meeting.py, else handshake.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.control.chains import Chains
from conflux.control.drop import Drop
from conflux.control.lan.acquaintances import Acquaintance, Acquaintances
from conflux.control.lan.certificate import Certificate, agreed_to_meet, peer_digest
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import Acceptor, Dialler, Hello, Ourselves, Peer, TwinError
from conflux.control.lan.meeting import Frame, MeetingAcceptor, MeetingDialler
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import Chain


class _EarlierAcceptor:
    """The accepting end, with a dialler of an earlier build; the same to its user as MeetingAcceptor."""

    def __init__(self, ourselves: Ourselves, certificate_digest: bytes, entropy: Callable[[int], bytes]) -> None:
        self._acceptor = Acceptor(ourselves, certificate_digest, entropy)
        self.greeting, self.binding = self._acceptor.greeting, self._acceptor.binding
        self.expects: tuple[FrameType, ...] = (FrameType.HELLO,)
        self.peer: Peer | None = None
        self.twin: TwinError | None = None
        self.their_chain: Chain | None = None

    def take_untrusted(self, kind: FrameType, body: bytes) -> list[Frame]:
        """Return what to send in answer to HELLO.  Raises RemoteProtocolError."""
        self.expects = ()
        try:
            self.peer, welcome = self._acceptor.answer_untrusted(body)
        except TwinError as twin:
            self.twin, welcome = twin, twin.welcome
        except RemoteProtocolError as error:
            if error.reason == Drop.REVOKED:  # it has proved who it is
                self.their_chain = Hello.decode_untrusted(body).chain
            raise
        return [(FrameType.WELCOME, welcome)]


class _EarlierDialler:
    """The dialling end, with an acceptor of an earlier build; the same to its user as MeetingDialler."""

    def __init__(self, ourselves: Ourselves, certificate_digest: bytes, entropy: Callable[[int], bytes]) -> None:
        self._dialler = Dialler(ourselves, certificate_digest, entropy)
        self.expects: tuple[FrameType, ...] = (FrameType.GREETING,)
        self.peer: Peer | None = None

    def take_untrusted(self, kind: FrameType, body: bytes) -> list[Frame]:
        """Return what to send in answer to a frame.  Raises RemoteProtocolError."""
        if kind is FrameType.GREETING:
            self.expects = (FrameType.WELCOME, FrameType.REVOKED)
            return [(FrameType.HELLO, self._dialler.hello_untrusted(body))]
        self.peer = self._dialler.finish_untrusted(body)
        return []


AnyAcceptor = MeetingAcceptor | _EarlierAcceptor


class Introductions(NamedTuple):
    """What every handshake of a node needs.  ourselves: this node's part, as it is now."""

    ourselves: Callable[[], Ourselves]
    entropy: Callable[[int], bytes]
    chains: Chains
    acquaintances: Acquaintances

    def acceptor(
        self, connection: Connection, certificate: Certificate, has_room: Callable[[NodeId], bool]
    ) -> AnyAcceptor:
        """Return the accepting end.  has_room: says whether one more connection, to that node, may be made."""
        ourselves = self.ourselves()

        def admit(chain: Chain) -> None:
            ourselves.admit(chain)
            node = chain.credential.node_id
            if node != ourselves.member.node_id and not has_room(node):
                raise RemoteProtocolError(Drop.NEIGHBOUR_COUNT)

        us = ourselves._replace(admit=admit)
        if agreed_to_meet(connection.tls):
            return MeetingAcceptor(us, certificate.digest, self.entropy, self.chains, self.acquaintances)
        return _EarlierAcceptor(us, certificate.digest, self.entropy)

    async def dial(self, connection: Connection, met: Acquaintance | None, told: Callable[[bytes], None]) -> Peer:
        """Do the dialler's part; return the node at the other end.  Raises RemoteProtocolError.

        met: the node that is expected there.  told: takes the signed list of an acceptor that says that we are revoked.
        """
        us, digest = self.ourselves(), peer_digest(connection.tls)
        dialler: MeetingDialler | _EarlierDialler
        if agreed_to_meet(connection.tls):
            dialler = MeetingDialler(us, digest, self.entropy, self.chains, self.acquaintances, met)
        else:
            dialler = _EarlierDialler(us, digest, self.entropy)
        while dialler.peer is None:
            kind, body = await connection.read(*dialler.expects)
            if kind is FrameType.REVOKED:
                told(body)
                raise RemoteProtocolError(Drop.REVOKED, "it says that this node is revoked")
            for frame in dialler.take_untrusted(kind, body):
                connection.send(*frame)
        return dialler.peer
