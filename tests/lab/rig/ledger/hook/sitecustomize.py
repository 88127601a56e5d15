"""Has a daemon tell the ledger what the wire does not show: its keys, and which message an envelope carries.

Loaded by PYTHONPATH into `conflux up` alone.  Appends JSON lines to $CONFLUX_LEDGER/ledger.jsonl, and TLS keys in
OpenSSL's own form to $CONFLUX_LEDGER/tls.keys.  Changes nothing else.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from typing import Any


def _install(directory: str) -> None:
    from conflux.carrier.native import dtls_keys
    from conflux.control.author import Author
    from conflux.control.envelope import Kind, Paired

    file = open(f"{directory}/ledger.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115  # as long as we live

    def say(**what: Any) -> None:
        file.write(json.dumps(what) + "\n")

    new_context = ssl.SSLContext.__new__

    def logged(cls: Any, *arguments: Any, **keywords: Any) -> Any:
        context = new_context(cls, *arguments, **keywords)
        context.keylog_filename = f"{directory}/tls.keys"
        return context

    ssl.SSLContext.__new__ = logged  # type: ignore[method-assign]

    take = dtls_keys.take_keys

    def taken(connection: Any, *, is_client: bool) -> Any:
        keys = take(connection, is_client=is_client)
        say(dtls=keys.cipher, key=keys.key_out.hex(), iv=keys.iv_out.hex())
        say(dtls=keys.cipher, key=keys.key_in.hex(), iv=keys.iv_in.hex())
        return keys

    dtls_keys.take_keys = taken
    given = dtls_keys.given_keys

    def agreed(link_keys: Any) -> Any:
        keys = given(link_keys)
        say(dtls=keys.cipher, key=keys.key_out.hex(), iv=keys.iv_out.hex())
        say(dtls=keys.cipher, key=keys.key_in.hex(), iv=keys.iv_in.hex())
        return keys

    dtls_keys.given_keys = agreed  # type: ignore[assignment]

    kinds: dict[bytes, str] = {}
    messages: dict[bytes, bytes] = {}  # by what they are sealed as
    sign, seal, envelope = Author.sign, Author.seal, Author.envelope

    def signed(self: Any, to: Any, seq: Any, kind: Any, body: Any, **keywords: Any) -> bytes:
        message = sign(self, to, seq, kind, body, **keywords)
        kinds[message] = Kind(kind).name
        return message

    def sealed(self: Any, to: Any, message: bytes) -> bytes:
        payload = seal(self, to, message)
        messages[payload] = message
        return payload

    def enveloped(self: Any, to: Any, key_id: Any, payload: bytes, **keywords: Any) -> Any:
        made = envelope(self, to, key_id, payload, **keywords)
        paired = Paired.find_untrusted(payload)
        known = kinds.get(messages.get(payload, payload), "?")
        say(envelope=made.id.hex(), kind=known if paired is None else paired.what.name)
        return made

    Author.sign, Author.seal, Author.envelope = signed, sealed, enveloped  # type: ignore[method-assign]


if "CONFLUX_LEDGER" in os.environ and "up" in sys.orig_argv:
    _install(os.environ["CONFLUX_LEDGER"])
