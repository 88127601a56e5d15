"""A thief of a token floods the issuer with requests to join, until it is killed.  Arguments: token, file of the CA."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from conflux.broker.client import Client, Login
from conflux.control.nats.tls import client_context
from conflux.realm.broker import subjects
from conflux.realm.broker.joining import Asked
from conflux.realm.invite import Token, parse_hint

PAUSE_S = 0.02
AT_ONCE = 20


def main(text: str, ca: Path) -> None:
    """Ask for challenges and send boxes of junk, two thousand messages a second at most."""
    token = Token.parse(text)
    assert token.broker is not None
    jwt, key = token.broker.admission.rebuild(token.invite_id, token.secret)
    host, port = parse_hint(token.broker.servers[0])
    subject = subjects.join(token.invite_id)
    with Client.open(host, port, Login(jwt, key.sign), tls=client_context(ca.read_text())) as client:
        while True:
            for _ in range(AT_ONCE):
                nonce = os.urandom(32)
                client.publish(subject, Asked(token.issuer, nonce).encode())
                client.publish(subject, Asked(token.issuer, nonce, bytes(32), os.urandom(5000)).encode())
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
