"""Connect to a broker as a node does, one step after another, and say in words which step fails, and why."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from conflux.broker import certificates
from conflux.broker.client import LINE_BYTES_MAX, WAIT_S, Client, Login, Message, ServerError
from conflux.broker.layout import at
from conflux.control.nats.end import HAS_EXPIRED, NOT_YET_VALID, ConnectError, quoted
from conflux.control.nats.tls import Trust
from conflux.crypto import nkey
from conflux.errors import ConfluxError, RemoteProtocolError, words_of
from conflux.host import tcp
from conflux.realm.broker import subjects
from conflux.realm.broker.jwt import AccountJwt, UserJwt, open_untrusted
from conflux.realm.broker.users import PAYLOAD_BYTES_MAX
from conflux.realm.member import Member

OLD_SERVER = (2, 10)  # older ones get no security fixes any more

# Of OpenSSL's X509_V_ERR_...: why a certificate was not believed.
_UNKNOWN_ISSUER = frozenset({2, 7, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


class Finding(NamedTuple):
    """One thing that was looked at."""

    where: str  # "clock", "credential", or a server
    is_wrong: bool
    text: str


class Ask(NamedTuple):
    """What to check.

    servers: (host, port) each.  ca: certificates in PEM, None for those that this system trusts.
    why_refused: returns what the operator knows of a refusal by a server of this host, or None.
    """

    servers: Sequence[tuple[str, int]]
    ca: str | None
    area: str
    why_refused: Callable[[str], str | None] = lambda _: None


class _Wrong(Exception):
    """What is wrong, in words."""


def check(ask: Ask, member: Member, *, floor_unix: int, now_unix: int) -> Iterator[Finding]:
    """Yield what was found, of this node first and then of each server.

    floor_unix: the newest date that the realm has signed, as far as this node knows.  now_unix: by this host's clock.
    """
    if now_unix < floor_unix:
        behind = f"at least {_span(floor_unix - now_unix)} behind: the realm signed something at {_date(floor_unix)}"
        yield Finding("clock", True, f"{_date(now_unix)}, {behind}")
    else:
        yield Finding("clock", False, f"{_date(now_unix)}")
    try:
        told = _own_jwt(member, now_unix)
    except _Wrong as wrong:
        yield Finding("credential", True, str(wrong))
        return
    account = nkey.encode(nkey.Kind.ACCOUNT, told.account)
    until = "without end" if told.expires_at is None else f"until {_date(told.expires_at)}"
    yield Finding("credential", False, f"admits {member.name} to account {account[:8]}... {until}")
    for host, port in ask.servers:
        try:
            trust = Trust(ask.ca, floor_unix=lambda: floor_unix, system=lambda: now_unix)
            text = _visit(ask, member, told, host, port, now_unix, trust)
        except _Wrong as wrong:
            yield Finding(at(host, port), True, str(wrong))
        else:
            yield Finding(at(host, port), False, text)


def _own_jwt(member: Member, now_unix: int) -> UserJwt:
    """Return what this node's JWT says, if it is good as far as that can be seen from here."""
    text = member.chain.credential.user_jwt
    if not text:
        raise _Wrong(
            "it has no NATS user JWT: the realm had no broker when it was signed.  Its issuer puts one in with the "
            "next renewal, if `conflux control init` was run there"
        )
    try:
        told = UserJwt.decode_untrusted(text)
    except RemoteProtocolError as error:
        raise _Wrong(f"its NATS user JWT is not one that this version of conflux writes ({error})") from None
    if told.user != member.keys.public.encode()[:32]:
        raise _Wrong("its NATS user JWT is for another node's key")
    if told.expires_at is not None and now_unix >= told.expires_at:
        raise _Wrong(
            f"its NATS user JWT ended {_span(now_unix - told.expires_at)} ago, at {_date(told.expires_at)}: "
            "the node needs a renewal by its issuer, or this host's clock is ahead"
        )
    if now_unix + 60 < told.issued_at:
        raise _Wrong(f"its NATS user JWT is of {_date(told.issued_at)}, which is to come: this host's clock is behind")
    return told


def _visit(ask: Ask, member: Member, told: UserJwt, host: str, port: int, now_unix: int, trust: Trust) -> str:
    """Go through every step of a connection, and return what is worth knowing of the server."""
    _reach(host, port)
    begun = time.monotonic()
    try:
        client = Client.open(host, port, _login(member), tls=trust.context(), wait_s=WAIT_S)
    except ServerError as error:
        raise _Wrong(_refusal(error, ask.why_refused(host), told)) from None
    except RemoteProtocolError as error:
        raise _Wrong(f"something else than a NATS server with TLS listens there ({error})") from None
    except ssl.SSLCertVerificationError as error:
        raise _Wrong(_distrust(error, ask.ca, host, port, now_unix)) from None
    except ssl.SSLError as error:
        raise _Wrong(f"TLS 1.3 does not come about: {words_of(error)}") from None
    except TimeoutError:
        raise _Wrong(
            f"it accepts the connection, and is silent for {WAIT_S:.0f} s: it hangs, or its host does"
        ) from None
    except OSError as error:
        raise _Wrong(f"the connection broke off: {words_of(error)}") from None
    with client:
        took_ms = (time.monotonic() - begun) * 1000
        try:
            trust.judge(client.certificate())
        except ConnectError as error:
            raise _Wrong(str(error)) from None
        _use(client, ask.area, told)
        return _praise(client, took_ms)


def _login(member: Member) -> Login:
    signing = member.keys.signing
    return Login(member.chain.credential.user_jwt, lambda nonce: nkey.sign_nonce(signing, nonce))


def _reach(host: str, port: int) -> None:
    """Raise _Wrong unless the name resolves and something accepts connections there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _Wrong(f"the name {host} does not resolve: {words_of(error)}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    try:
        tcp.connect(host, port, timeout_s=WAIT_S).close()
    except ConnectionRefusedError:
        raise _Wrong(
            f"nothing listens at port {port} of {_either(addresses)}: the server is down, or the port another"
        ) from None
    except TimeoutError:
        raise _Wrong(
            f"no answer from port {port} of {_either(addresses)} within {WAIT_S:.0f} s: a firewall drops the packets, "
            "or the host is away"
        ) from None
    except OSError as error:
        raise _Wrong(f"{_either(addresses)} cannot be reached: {words_of(error)}") from None


def _refusal(error: ServerError, known: str | None, told: UserJwt) -> str:
    said = f"the server does not let this node in ({error.said})"
    if known is not None:
        return f"{said}: {known}"
    lowered = error.said.lower()
    if "revoked" in lowered:
        return f"{said}: the realm has revoked it"
    if "expired" in lowered:
        return f"{said}: by the server's clock its JWT has ended"
    if "authorization" not in lowered and "authentication" not in lowered:
        return said
    account = nkey.encode(nkey.Kind.ACCOUNT, told.account)
    return (
        f"{said}: the realm has revoked this node, or the server does not know account {account[:8]}... or the key "
        "that signed the JWT (`conflux control push` brings it up to date), or the server's clock is wrong"
    )


def refusal_of(member: Member, accounts: Sequence[AccountJwt]) -> str | None:
    """Return why the realm's account, as servers have it, does not admit a member; None if it does."""
    if not accounts:
        return "it does not know the realm's account; `conflux control push` tells it"
    account = max(accounts, key=lambda each: each.issued_at)
    text = member.chain.credential.user_jwt
    told, signer = UserJwt.decode_untrusted(text), open_untrusted(text).issuer
    until = account.revoked.get(told.user)
    if until is not None and told.issued_at <= until:
        return f"it was revoked at {_date(until)}, and its JWT is of {_date(told.issued_at)}"
    if told.account != account.account:
        return "its JWT is for the account of another broker"
    if signer not in {nkey.encode(nkey.Kind.ACCOUNT, key) for key in (*account.signing_keys, account.account)}:
        return f"its JWT is signed by {signer[:8]}..., which the account does not list"
    return None


def _distrust(error: ssl.SSLCertVerificationError, ca: str | None, host: str, port: int, now_unix: int) -> str:
    """Return why the server's certificate was not believed."""
    chain = _shown(host, port)
    if not chain:
        return f"its certificate is not believed: {error.verify_message}"
    certificate = certificates.load_certificate(chain)
    code = error.verify_code
    if code in _OTHER_NAME:
        names = quoted(", ".join(certificates.names(certificate))) or "nothing"
        return f"its certificate is for {names}, not for {host}: use one of those names, or make it one for this"
    if code == HAS_EXPIRED:
        ended = int(certificate.not_valid_after_utc.timestamp())
        return (
            f"its certificate ended at {_date(ended)}, and this host's clock says {_date(now_unix)}: "
            "`conflux control init` makes a new one, or the clock is ahead"
        )
    if code == NOT_YET_VALID:
        begins = int(certificate.not_valid_before_utc.timestamp())
        return f"its certificate begins at {_date(begins)}, and this host's clock says {_date(now_unix)}: it is behind"
    if code in _UNKNOWN_ISSUER:
        issuer = quoted(certificate.issuer.rfc4514_string())
        trusted = "an authority that this system trusts" if ca is None else f"that of the CA file, {_fingerprint(ca)}"
        return f"its certificate is signed by {issuer}, not by {trusted}"
    return f"its certificate is not believed: {error.verify_message}"


def _shown(host: str, port: int) -> bytes:
    """Return the certificate that a server shows, in PEM, believing nothing; empty if it shows none now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with tcp.connect(host, port, timeout_s=WAIT_S) as plain:
            line = b""
            while not line.endswith(b"\r\n"):
                more = plain.recv(4096)
                line += more
                if not more or len(line) > LINE_BYTES_MAX:
                    return b""
            with context.wrap_socket(plain, server_hostname=host) as wrapped:
                shown = wrapped.getpeercert(binary_form=True)
    except OSError:
        return b""
    return b"" if shown is None else ssl.DER_cert_to_PEM_cert(shown).encode()


def _use(client: Client, area: str, told: UserJwt) -> None:
    """Listen where a node listens, and send a message to itself; raise _Wrong if that is not permitted."""
    for subject in (subjects.messages(told.user), subjects.presences(area), subjects.auth("lists")):
        client.subscribe(subject)
        _flush(client, f"listen to {subject}")
    own = subjects.message(told.user, told.user)
    client.publish(own, b"conflux control check")
    arrived = _flush(client, f"publish to {own}")
    client.publish(subjects.presence(area, told.user), b"")
    _flush(client, "say that it is there")
    if own not in {message.subject for message in arrived}:
        raise _Wrong("it is let in, but a message that it sent to itself did not come back")
    limit = client.info.get("max_payload")
    if isinstance(limit, int) and limit < PAYLOAD_BYTES_MAX:
        raise _Wrong(f"the server passes on messages of {limit} bytes at most; max_payload must be {PAYLOAD_BYTES_MAX}")


def _flush(client: Client, what: str) -> Sequence[Message]:
    try:
        return client.flush()
    except ServerError as error:
        if "permission" in error.said.lower():
            raise _Wrong(
                f"it is let in, but may not {what} ({error.said}): a renewal brings a JWT of this version, or the "
                "account limits its users"
            ) from None
        raise _Wrong(f"it is let in, and then put out ({error.said})") from None
    except (OSError, ConfluxError) as error:
        raise _Wrong(f"it is let in, and then the connection broke off: {words_of(error)}") from None


def _praise(client: Client, took_ms: float) -> str:
    version = quoted(str(client.info.get("version", "?"))[:32])
    text = f"lets this node in; nats-server {version}, connected in {took_ms:.0f} ms"
    parts = version.split(".")
    if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() and tuple(map(int, parts[:2])) < OLD_SERVER:
        text += "; this version gets no security fixes any more"
    return text


def _fingerprint(pem: str) -> str:
    der = ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----END") + len("-----END CERTIFICATE-----")])
    return f"SHA-256 {hashlib.sha256(der).hexdigest()[:16]}..."


def _either(addresses: Sequence[str]) -> str:
    return " or ".join(addresses)


def _date(unix: int) -> str:
    return datetime.datetime.fromtimestamp(unix, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
