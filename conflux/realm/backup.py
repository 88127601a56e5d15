"""What a person keeps of a realm, so that another board can be its founder: the root's key, and what it governs.

conflux-backup 0x00 | kind 1 | Backup, sealed by a passphrase (kind 1) or plain (kind 0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from conflux.crypto import passphrase
from conflux.crypto.sign import SEED_BYTES, SigningKey
from conflux.errors import AuthError, ConfigError, RemoteProtocolError
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import UNIX_S_MAX, Grant
from conflux.realm.issued import Issued
from conflux.record import Record, nested, octets, sequence, text, uint

GRANT_COUNT_MAX = 64
NODE_COUNT_MAX = 2000  # chosen: one message holds 4096 items; of more nodes the ones let in last are kept
NODE_BYTES_MAX = 4096
FILE_COUNT_MAX = 8
FILE_BYTES_MAX = 8192
BACKUP_BYTES_MAX = 8 << 20

_MAGIC = b"conflux-backup\0"
_PLAIN, _SEALED = 0, 1


@dataclass(frozen=True, slots=True)
class KeptFile(Record):
    """A file of the state directory that goes with the root's key, such as the key of the realm's broker."""

    BYTES_MAX = FILE_BYTES_MAX + 128
    SHAPES = (text(32), octets(0, FILE_BYTES_MAX))

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Backup(Record):
    """The content of a backup."""

    BYTES_MAX = BACKUP_BYTES_MAX
    SHAPES = (
        octets(SEED_BYTES),
        nested(RealmAnchor),
        uint(UNIX_S_MAX),
        sequence(nested(Grant), GRANT_COUNT_MAX),
        sequence(nested(Grant), GRANT_COUNT_MAX),
        sequence(octets(1, NODE_BYTES_MAX), NODE_COUNT_MAX),
        sequence(nested(KeptFile), FILE_COUNT_MAX),
    )

    root_seed: bytes = field(repr=False)
    anchor: RealmAnchor
    made_at: int  # unix seconds
    own: tuple[Grant, ...]  # of the board that made the backup: the blocks that another board takes over
    given: tuple[Grant, ...]  # of other issuers: their blocks are theirs
    nodes: tuple[bytes, ...]  # each an Issued, without the node's keys
    files: tuple[KeptFile, ...]

    def root_key(self) -> SigningKey:
        """Return the root's key.  Raises ConfigError if it is not the key of the realm beside it."""
        root = SigningKey.from_seed(self.root_seed)
        if root.public.encode() != self.anchor.root_public:
            raise ConfigError("the backup is damaged: its key is not the realm's")
        return root

    def issued(self) -> list[Issued]:
        """Return the nodes on record.  Raises RemoteProtocolError if one is damaged."""
        return [Issued.decode_untrusted(node) for node in self.nodes]

    def seal(self, word: str | None, *, entropy: Callable[[int], bytes]) -> bytes:
        """Return the bytes of a file.  word: the passphrase; None: whoever has the file has the realm."""
        data = self.encode()
        if word is None:
            return _MAGIC + bytes((_PLAIN,)) + data
        return _MAGIC + bytes((_SEALED,)) + passphrase.seal(word, data, entropy=entropy)

    @classmethod
    def unseal_untrusted(cls, file: bytes, word: Callable[[], str]) -> Self:
        """Return the backup in a file.  word: asks for the passphrase, if one is needed.  Raises ConfigError."""
        head, data = file[: len(_MAGIC) + 1], file[len(_MAGIC) + 1 :]
        if head not in (_MAGIC + bytes((_PLAIN,)), _MAGIC + bytes((_SEALED,))):
            raise ConfigError("this is no backup of a realm")
        try:
            if head[-1] == _SEALED:
                data = passphrase.unseal_untrusted(word(), data)
            backup = cls.decode_untrusted(data)
            backup.anchor.verify()
            backup.issued()
        except AuthError:
            raise ConfigError("the passphrase is wrong, or the backup is damaged") from None
        except RemoteProtocolError as error:
            raise ConfigError(f"the backup is damaged, or not of this version of conflux ({error})") from None
        return backup
