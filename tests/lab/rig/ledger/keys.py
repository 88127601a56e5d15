"""What the daemons wrote down for the ledger: see hook/sitecustomize.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class RecordKey(NamedTuple):
    """Of one direction of one link's DTLS.  cipher: as conflux.carrier.wire numbers them."""

    cipher: int
    key: bytes
    iv: bytes


class Keys:
    """Keys of links and control connections, and the kinds of envelopes."""

    def __init__(self, directories: Iterable[Path]) -> None:
        """directories: one a daemon; what a daemon has not written yet is not known."""
        self.links: list[RecordKey] = []
        self.kinds: dict[str, str] = {}  # of an envelope's id
        self.tls: dict[str, dict[str, bytes]] = defaultdict(dict)  # by the client's random, then by label
        for directory in directories:
            for line in _lines(directory / "ledger.jsonl"):
                entry = json.loads(line)
                if "dtls" in entry:
                    key, iv = bytes.fromhex(entry["key"]), bytes.fromhex(entry["iv"])
                    self.links.append(RecordKey(entry["dtls"], key, iv))
                else:
                    self.kinds[entry["envelope"]] = entry["kind"]
            for line in _lines(directory / "tls.keys"):
                if not line.startswith("#"):
                    label, random, secret = line.split()
                    self.tls[random][label] = bytes.fromhex(secret)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
