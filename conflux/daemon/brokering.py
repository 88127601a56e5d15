"""The realm's broker while the daemon runs: announced where it is set up, and used where nothing else is configured.

    conflux control init ─► broker.notice ─► signed here ─► all members ─► a channel to the servers that it names
                                                             └─► no admission yet: a renewal by the issuer brings one

A notice without servers ends that again.  Keys, addresses and streams have no part in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from random import Random

from conflux.config.settings import NatsSettings
from conflux.control.channel import ControlChannel
from conflux.control.nats.config import NatsConfig
from conflux.daemon.issuing import Issuing
from conflux.daemon.renewal import Renewal
from conflux.daemon.revoking import Revocation
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UserError, words_of
from conflux.realm.broker.subjects import is_area
from conflux.realm.clock import RealmClock
from conflux.realm.denying import Signer
from conflux.realm.invite import parse_hint
from conflux.realm.lists import BrokerNotice
from conflux.shell.pump import Pump
from conflux.state.broker_files import forget_notice, wanted_notice
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)

LOOK_S = 60.0  # between two looks without a reason
ASK_S_MAX = 5.0  # of waiting, at random, before a node asks for an admission: all hear of a broker at once
# Between two such requests; grows twofold.  An issuer renews a node once a minute.
ASK_AGAIN_S_MIN, ASK_AGAIN_S_MAX = 65.0, 3600.0

Make = Callable[[NatsConfig], ControlChannel]


class Brokering:
    """Watches which broker the realm has.

    settings: a person's, who may have named other servers.  make: returns a channel, which is not started; raises
    ImportError or OSError if the program's files cannot be read any more.
    """

    def __init__(
        self,
        state: StateDir,
        settings: NatsSettings,
        *,
        revocation: Revocation,
        renewal: Renewal,
        issuing: Issuing,
        pump: Pump,
        clock: RealmClock,
        make: Make,
        rng: Random,
    ) -> None:
        self.trouble = ""
        self._state = state
        self._settings = settings
        self._revocation = revocation
        self._renewal = renewal
        self._issuing = issuing
        self._pump = pump
        self._clock = clock
        self._make = make
        self._rng = rng
        self._woken = asyncio.Event()
        self._config: NatsConfig | None = None  # of the present channel, or of one that could not be made
        self._channel: ControlChannel | None = None
        self._ask_at: float | None = None  # None: this node has an admission, or needs none
        self._again_s = ASK_AGAIN_S_MIN

    def look(self) -> None:
        """Look now: a notice came, or was left here."""
        self._woken.set()

    def warnings(self) -> list[str]:
        """Return what a person should know."""
        return [self.trouble] if self.trouble else []

    async def run(self) -> None:
        """Look whenever there is a reason.  Runs until it is cancelled."""
        while True:
            self._woken.clear()
            try:
                self._announce()
                self._admit_self()
            except StateError as error:
                log.error("the broker: %s", error)
            await self._follow()
            wait_s = self._ask_if_due(self._pump.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    # ── the issuer that set the broker up ──

    def _announce(self) -> None:
        """Sign what `conflux control` left here, and tell the realm.  Raises StateError."""
        wanted, grant = wanted_notice(self._state), self._state.grant()
        if wanted is None or grant is None:
            return
        book, signer = self._revocation.book, Signer(self._renewal.member.keys.signing, grant)
        if book.broker() != wanted:
            signed = signer.next_state(book, wanted, now_unix=self._clock.now_unix())
            try:
                self._revocation.publish(signed)
            except RemoteProtocolError as error:
                log.error("the broker is not announced: %s", error)
                return
            servers = ", ".join(wanted.servers)
            log.info("the realm %s", f"uses the broker {servers}" if servers else "uses no broker any more")
        forget_notice(self._state)

    def _admit_self(self) -> None:
        """Take note of a key that signs admissions, and give this issuer itself one.  Raises StateError."""
        issuer = self._issuing.look_for_key()
        chain = self._renewal.member.chain
        if issuer is None or chain.credential.nats_jwt or chain.credential.issuer != issuer.issuer_id:
            return
        try:
            self._renewal.adopt(issuer.renew(chain, now_unix=self._clock.now_unix(), late_s=None))
        except RemoteProtocolError as error:
            log.warning("this issuer cannot admit itself to the broker: %s", error)

    # ── every node ──

    async def _follow(self) -> None:
        """Use the servers of the notice that holds, from now on."""
        config = self.wanted()
        if config == self._config:
            return
        before, self._channel, self._config, self.trouble = self._channel, None, config, ""
        if before is not None:
            await self._pump.remove(before)
        if config is None:
            return
        try:
            channel = self._make(config)
            await self._pump.add(channel)
            self._channel = channel
        except (ImportError, OSError) as error:
            self.trouble = f"broker: it can be used from the next start on ({words_of(error)})"
        except UserError as error:
            self.trouble = f"broker: what the realm says of it is of no use ({error})"
        if self.trouble:
            log.warning("%s", self.trouble)

    def wanted(self) -> NatsConfig | None:
        """Return what to connect to; None: nothing, or what the configuration says."""
        notice = self._revocation.book.broker()
        if not self._settings.enabled or self._settings.servers or notice is None:
            return None
        return config_of(notice, self._renewal)

    def _ask_if_due(self, now: float) -> float:
        """Ask the issuer for an admission if this node has none; return how long nothing is to be done."""
        has_broker = self._channel is not None or (self._settings.enabled and bool(self._settings.servers))
        is_admitted = bool(self._renewal.member.chain.credential.nats_jwt)
        if not has_broker or is_admitted:
            self._ask_at, self._again_s = None, ASK_AGAIN_S_MIN
            return LOOK_S
        if self._ask_at is None:
            self._ask_at = now + self._rng.uniform(0.0, ASK_S_MAX)
        elif self._ask_at <= now:
            self._renewal.ask()
            self._ask_at = now + self._rng.uniform(1.0, 2.0) * self._again_s
            self._again_s = min(2 * self._again_s, ASK_AGAIN_S_MAX)
        return min(LOOK_S, self._ask_at - now)


def config_of(notice: BrokerNotice, renewal: Renewal) -> NatsConfig | None:
    """Return what a channel is configured with by a notice; None: it names no server, or no area that there can be."""
    servers = []
    for server in notice.servers:
        with contextlib.suppress(ConfigError):  # a port beyond 65535, say
            servers.append(parse_hint(server.removeprefix("tls://")))
    if not servers or not is_area(notice.area):
        return None
    anchor = renewal.member.anchor
    ca = ssl.DER_cert_to_PEM_cert(notice.ca) if notice.ca else None
    return NatsConfig(tuple(servers), ca, notice.area, (anchor.ipv6_prefix, anchor.ipv4_prefix))
