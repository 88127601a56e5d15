"""What an issuer keeps so that its members are admitted by the realm's broker: an account's name, and a key that signs.

broker          of which realm, which account, and the public half of the key
broker.key      its seed: with it, anyone makes users of the account
broker.notice   where the broker is, until the daemon has signed that and told the realm
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from conflux.crypto.nkey import SEED_BYTES, KeyPair, Kind
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.errors import StateError
from conflux.ids import REALM_ID_BYTES, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.broker.users import Signer
from conflux.realm.listbook import ListBook
from conflux.realm.lists import BrokerNotice
from conflux.record import Record, octets
from conflux.state.directory import StateDir
from conflux.state.list_files import ListFiles

BROKER, BROKER_KEY, BROKER_NOTICE = "broker", "broker.key", "broker.notice"


@dataclass(frozen=True, slots=True)
class BrokerAccount(Record):
    """The content of broker."""

    SHAPES = (octets(REALM_ID_BYTES), octets(ED25519_PUBLIC_BYTES), octets(ED25519_PUBLIC_BYTES))

    realm_id: RealmId
    account: bytes
    signer: bytes


@dataclass(frozen=True, slots=True)
class BrokerKeyFile(Record):
    """The content of broker.key."""

    SHAPES = (octets(SEED_BYTES),)

    seed: bytes = field(repr=False)


def save_signer(state: StateDir, realm_id: RealmId, signer: Signer) -> None:
    """Save what signs the users of a realm.  Raises StateError if another key is here: none is ever overwritten."""
    kept = state.load_record(BROKER_KEY, BrokerKeyFile)
    if kept is not None and kept.seed != signer.key.seed_bytes:
        raise StateError(
            f"{state.path / BROKER_KEY}: the key of another broker; move it away if this node is to issue for a new one"
        )
    if kept is None:
        state.save_record(BROKER_KEY, BrokerKeyFile(signer.key.seed_bytes))
    state.save_record(BROKER, BrokerAccount(realm_id, signer.account, signer.key.public))


def load_signer(state: StateDir, realm_id: RealmId) -> Signer | None:
    """Return what signs the users of a realm, or None if there is nothing.  Raises StateError for another realm's."""
    account = state.load_record(BROKER, BrokerAccount)
    file = state.load_record(BROKER_KEY, BrokerKeyFile)
    if account is None or file is None:
        return None
    key = KeyPair.from_seed_bytes(Kind.ACCOUNT, file.seed)
    if account.realm_id != realm_id or account.signer != key.public:
        raise StateError(f"{state.path / BROKER}: of another realm, or of another key than {BROKER_KEY}")
    return Signer(account.account, key)


def save_notice(state: StateDir, notice: BrokerNotice) -> None:
    """Save where the broker is; the daemon of this issuer signs that, and tells the realm."""
    state.save_record(BROKER_NOTICE, notice)


def wanted_notice(state: StateDir) -> BrokerNotice | None:
    """Return the notice that is still to be signed, or None."""
    return state.load_record(BROKER_NOTICE, BrokerNotice)


def forget_notice(state: StateDir) -> None:
    """Take note that the notice was signed.  No-op if there is none."""
    state.remove(BROKER_NOTICE)


def broker_of(state: StateDir, anchor: RealmAnchor, clock: Callable[[], int]) -> BrokerNotice | None:
    """Return where the realm's broker is, as far as is known here; None: it has none.  clock: unix seconds."""
    notice = wanted_notice(state)
    if notice is None:
        book = ListBook(anchor, clock)
        book.load(ListFiles(state).all())
        notice = book.broker()
    return notice if notice is not None and notice.servers else None
