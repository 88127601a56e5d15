"""The operator's directory: the keys of a broker, and a folder of files for each of its servers.

    layout                which servers there are
    ca.pem                what nodes trust
    account.jwt           the realm's account, as it was published last; operator.jwt and system.jwt never change
    keys/*.nk  ca.key     operator, system account, account, signing key of users; the authority      mode 0600
    servers/HOST/         what a server of a region reads
    leaves/HOST/          what a site's server reads
    issuer/               the two files with which another issuer of the realm makes users

Everything but the keys can be written again, and `conflux control init` does so.  A key is made once.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.serialization import Encoding

from conflux.broker import certificates, server_files
from conflux.broker.layout import Layout, at, load_layout
from conflux.broker.server_files import CA, CERTIFICATE, COMPOSE, CONFIG, KEY, REALM_CREDS, SYSTEM_CREDS, UNIT, Accounts
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import ConfigError, RemoteProtocolError, StateError
from conflux.ids import RealmId
from conflux.realm.broker.jwt import LEAF_NODE, UNLIMITED, AccountJwt, OperatorJwt, Permissions, UserJwt
from conflux.realm.broker.users import Signer
from conflux.realm.lists import SERVER_COUNT_MAX, BrokerNotice
from conflux.state.broker_files import BROKER, BrokerAccount, save_signer
from conflux.state.directory import StateDir

LAYOUT, CA_KEY = "layout", "keys/ca.key"
OPERATOR_JWT, SYSTEM_JWT, ACCOUNT_JWT = "operator.jwt", "system.jwt", "account.jwt"
OPERATOR, SYSTEM, ACCOUNT, SIGNING = "operator", "system", "account", "signing"
KINDS = {OPERATOR: Kind.OPERATOR, SYSTEM: Kind.ACCOUNT, ACCOUNT: Kind.ACCOUNT, SIGNING: Kind.ACCOUNT}
SERVERS, LEAVES, ISSUER = "servers", "leaves", "issuer"
AREA = "main"
SECRET = 0o600
PUBLIC = 0o644  # a server runs as a user of its own, and reads these where they are copied to

# What the server of a site may do in the system account: hear of accounts, and ask for them.
SITE_SYSTEM = Permissions(
    ("$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP", "$SYS._INBOX.>", "_INBOX.>"),
    (
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE",
        "$SYS.ACCOUNT.*.CLAIMS.UPDATE",
        "$SYS._INBOX.>",
    ),
)
# What `conflux control push` may do there.
PUSH = Permissions(("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"), ("_INBOX.>",))
PUSH_S = 300
PUSH_BYTES_MAX = 1 << 20  # an account with many revocations


class Directory:
    """One broker's directory.  Every method raises StateError or ConfigError, whose text names the file."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self.path = state.path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the directory that `conflux control init` made at path."""
        if not (path / LAYOUT).exists():
            raise ConfigError(
                f"{path}: no broker is kept there; `conflux control init {path} --servers HOST` makes one"
            )
        return cls(StateDir.open(path))

    # ── reading ──

    def layout(self) -> Layout:
        """Return which servers there are."""
        try:
            return load_layout(self._read(LAYOUT))
        except ConfigError as error:
            raise ConfigError(f"{self.path / LAYOUT}: {error}") from None

    def key(self, name: str) -> KeyPair:
        """Return one of the keys of KINDS."""
        path = f"keys/{name}.nk"
        try:
            return KeyPair.from_seed_untrusted(KINDS[name], self._read(path).decode("ascii", "replace").strip())
        except RemoteProtocolError as error:
            raise StateError(f"{self.path / path}: {error}") from None

    def account(self) -> AccountJwt:
        """Return the realm's account as it was published last."""
        try:
            return AccountJwt.decode_untrusted(self._read(ACCOUNT_JWT).decode("ascii", "replace").strip())
        except RemoteProtocolError as error:
            raise StateError(f"{self.path / ACCOUNT_JWT}: {error}") from None

    def ca(self) -> str:
        """Return the authority's certificate in PEM."""
        return self._read(CA).decode("ascii", "replace")

    def notice(self) -> BrokerNotice:
        """Return what the realm's nodes have to know: the servers of all regions, and the authority."""
        layout = self.layout()
        servers = tuple(f"tls://{at(host, layout.port)}" for host in layout.hosts)
        ca = certificates.load_certificate(self._read(CA)).public_bytes(Encoding.DER)
        return BrokerNotice(servers[:SERVER_COUNT_MAX], ca, AREA)

    def signer(self) -> Signer:
        """Return what makes the users of the realm's account."""
        return Signer(self.key(ACCOUNT).public, self.key(SIGNING))

    def realm_id(self) -> RealmId:
        """Return the realm whose broker it is."""
        kept = StateDir.open(self.path / ISSUER).load_record(BROKER, BrokerAccount)
        if kept is None:
            raise StateError(f"{self.path / ISSUER / BROKER}: missing; restore it from a copy")
        return kept.realm_id

    def push_jwt(self, user: KeyPair, now_unix: int) -> str:
        """Return the JWT of the user that publishes accounts; it lasts for PUSH_S."""
        return UserJwt(
            user=user.public,
            account=self.key(SYSTEM).public,
            issued_at=now_unix,
            expires_at=now_unix + PUSH_S,
            permissions=PUSH,
            subscriptions_max=16,
            payload_bytes_max=PUSH_BYTES_MAX,
        ).encode(self.key(SYSTEM))

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise StateError(f"{self.path / name}: {error.strerror}") from None

    # ── writing ──

    @classmethod
    def make(cls, path: Path, layout: Layout, realm_id: RealmId, realm: str, now: datetime.datetime) -> Self:
        """Make the directory at path, whole or not at all; if it is there, write anew what is no key."""
        if path.exists():
            found = cls(StateDir.open(path))
            if any(path.iterdir()) and not (path / LAYOUT).exists():
                raise ConfigError(f"{path}: holds something else; name a directory that is not there yet")
            if (path / LAYOUT).exists() and found.realm_id() != realm_id:
                raise ConfigError(f"{path}: the broker of another realm than {realm}")
            found._write(layout, realm_id, realm, now)
            return found
        beside = path.with_name(f".{path.name}.new")
        if beside.exists():
            shutil.rmtree(beside)  # of a run that was broken off
        cls(StateDir.open(beside, create=True))._write(layout, realm_id, realm, now)
        beside.rename(path)
        return cls.open(path)

    def save_account(self, account: AccountJwt) -> str:
        """Save the realm's account, signed, and return its JWT."""
        text = account.encode(self.key(OPERATOR))
        self._put(ACCOUNT_JWT, text + "\n", PUBLIC)
        return text

    def _write(self, layout: Layout, realm_id: RealmId, realm: str, now: datetime.datetime) -> None:
        self._make_keys(realm, now)
        accounts = self._accounts(layout, realm, int(now.timestamp()))
        for host in layout.hosts:
            files = {
                CONFIG: server_files.server_config(layout, host, accounts),
                UNIT: server_files.unit(realm, is_leaf=False),
                COMPOSE: server_files.compose(layout, is_leaf=False, host=host),
            }
            self._write_server(f"{SERVERS}/{host}", host, files, now, is_leaf=False)
        for host in layout.leaves:
            files = {
                CONFIG: server_files.leaf_config(layout, host, accounts),
                UNIT: server_files.unit(realm, is_leaf=True),
                COMPOSE: server_files.compose(layout, is_leaf=True),
            }
            self._write_server(f"{LEAVES}/{host}", host, files, now, is_leaf=True)
            self._write_creds(f"{LEAVES}/{host}", int(now.timestamp()))
        save_signer(StateDir.open(self.path / ISSUER, create=True), realm_id, self.signer())
        self._state.atomic_write(LAYOUT, layout.encode())  # last: without it the directory is none yet

    def _make_keys(self, realm: str, now: datetime.datetime) -> None:
        for name, kind in KINDS.items():
            if not self._has(f"keys/{name}.nk"):
                self._put(f"keys/{name}.nk", KeyPair.generate(kind).seed + "\n", SECRET)
        if not self._has(CA_KEY):
            self._put(CA_KEY, certificates.key_pem(certificates.make_key()), SECRET)
        if not self._has(CA):
            self._put(CA, certificates.make_ca(self._private(CA_KEY), realm, now), PUBLIC)

    def _accounts(self, layout: Layout, realm: str, now_unix: int) -> Accounts:
        """Return the JWTs that a server begins with; those that are there already, unless the layout asks for more."""
        operator, system = self.key(OPERATOR), self.key(SYSTEM).public
        if not self._has(OPERATOR_JWT):
            self._put(OPERATOR_JWT, OperatorJwt(operator.public, system, realm, now_unix).encode(operator), PUBLIC)
        if not self._has(SYSTEM_JWT):
            self._put(SYSTEM_JWT, AccountJwt(system, "system", now_unix).encode(operator), PUBLIC)
        leaf_count = 2 * len(layout.leaves)  # a server that lost a link without a word holds it for minutes
        signer = self.signer()
        if not self._has(ACCOUNT_JWT):
            account = AccountJwt(signer.account, realm, now_unix, (signer.key.public,), leaf_nodes_max=leaf_count)
            self.save_account(account)
        elif (kept := self.account()).leaf_nodes_max != leaf_count:
            issued_at = max(now_unix, kept.issued_at + 1)
            self.save_account(dataclasses.replace(kept, leaf_nodes_max=leaf_count, issued_at=issued_at))
        return Accounts(
            self._text(OPERATOR_JWT),
            self.key(SYSTEM).word,
            self._text(SYSTEM_JWT),
            self.key(ACCOUNT).word,
            self._text(ACCOUNT_JWT),
        )

    def _write_server(
        self, place: str, host: str, files: dict[str, str], now: datetime.datetime, *, is_leaf: bool
    ) -> None:
        """Write what a server reads.  Its certificate is made anew when it does not hold much longer."""
        if not self._has(f"{place}/{KEY}"):
            self._put(f"{place}/{KEY}", certificates.key_pem(certificates.make_key()), SECRET)
        key, ca = self._private(f"{place}/{KEY}"), self.ca().encode()
        certificate = f"{place}/{CERTIFICATE}"
        if not self._has(certificate) or not certificates.is_good(self._read(certificate), key, ca, now):
            made = certificates.make_server(key, host, self._private(CA_KEY), ca, now, is_leaf=is_leaf)
            self._put(certificate, made, PUBLIC)
        self._put(f"{place}/{CA}", ca, PUBLIC)
        for name, text in files.items():
            self._put(f"{place}/{name}", text, PUBLIC)

    def _write_creds(self, place: str, now_unix: int) -> None:
        """Write, once, who the server of a site is for the servers of the regions, in each of the two accounts."""
        if not self._has(f"{place}/{REALM_CREDS}"):
            user = KeyPair.generate(Kind.USER)
            jwt = self.signer().leaf_jwt(user.public, issued_at=now_unix)
            self._put(f"{place}/{REALM_CREDS}", _creds(jwt, user), SECRET)
        if not self._has(f"{place}/{SYSTEM_CREDS}"):
            user = KeyPair.generate(Kind.USER)
            system = self.key(SYSTEM)
            jwt = UserJwt(
                user.public, system.public, now_unix, None, SITE_SYSTEM, UNLIMITED, PUSH_BYTES_MAX, LEAF_NODE
            ).encode(system)
            self._put(f"{place}/{SYSTEM_CREDS}", _creds(jwt, user), SECRET)

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()

    def _text(self, name: str) -> str:
        return self._read(name).decode("ascii", "replace").strip()

    def _private(self, name: str) -> certificates.PrivateKey:
        try:
            return certificates.load_key(self._read(name))
        except ConfigError as error:
            raise StateError(f"{self.path / name}: {error}") from None

    def _put(self, name: str, content: str | bytes, mode: int) -> None:
        path = self.path / name
        for folder in reversed(path.relative_to(self.path).parents):
            (self.path / folder).mkdir(mode=0o700, exist_ok=True)
        self._state.atomic_write(name, content.encode() if isinstance(content, str) else content, mode)


def _creds(jwt: str, user: KeyPair) -> str:
    """Return the file of a user, as NATS servers read it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
