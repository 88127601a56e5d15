"""Publish the realm's account to the servers of its broker: whom they must not admit any more.

A server keeps whatever account the operator signed, an old one too.  So before anything is published, the servers are
asked for theirs: what is pushed is newer than each of them, and nothing that one of them has revoked is forgotten.
"""

from __future__ import annotations

import dataclasses
import json
import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple

from conflux.broker.client import Client, Login, ServerError
from conflux.broker.directory import ACCOUNT, OPERATOR, Directory
from conflux.broker.layout import at
from conflux.control.nats.end import quoted
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import ConfluxError, RemoteProtocolError, UserError, words_of
from conflux.realm.broker.jwt import REVOCATION_COUNT_MAX, AccountJwt, open_untrusted
from conflux.realm.broker.users import LATE_S
from conflux.realm.issued import Issued

ANSWER_S = 2.0  # servers answer within a round trip; one that did not is asked alone
LOOKUP_S = 1.0
CONNECT_S = 3.0
NAME_CHARS_MAX = 253  # of a server: it has its host's


# A member whose capability was taken back has the broker by its new JWT, which it has to get first.  Chosen: a board
# that is switched off over night is not shut out, and one that never takes its change loses the broker a day later.
TAKEN_BACK_S = 86400


class Ended(NamedTuple):
    """An admission that ended: whose JWTs of until when count no more, and when the last of them ends anyway."""

    user: bytes  # 32 bytes of Ed25519 key
    at_unix: int
    forget_at: int  # unix seconds


class Outcome(NamedTuple):
    """What a push came to."""

    account: AccountJwt
    is_new: bool  # whether the account changed
    took: tuple[str, ...]  # servers, by name
    failed: Mapping[str, str]  # servers, and why


def ended_of(entries: Iterable[Issued], now_unix: int) -> list[Ended]:
    """Return the memberships that an issuer's records say have ended, and the JWTs with what was taken back since.

    The latter count until the member uses its new credential, or TAKEN_BACK_S at most.
    """
    ended = []
    for entry in entries:
        user = entry.node_public[:32]
        if not entry.is_member:
            ended.append(Ended(user, entry.ended_at, entry.not_after + LATE_S))
        elif entry.withdrawn_at and (not entry.due or now_unix >= entry.withdrawn_at + TAKEN_BACK_S):
            ended.append(Ended(user, entry.withdrawn_at, entry.withdrawn_until))
    return [each for each in ended if each.user]


def next_account(known: Iterable[AccountJwt], ended: Iterable[Ended], now_unix: int) -> tuple[AccountJwt, bool]:
    """Return the account to publish, and whether it is a new one.

    known: our own first, then those that servers have.  Of revocations the latest of each user counts.
    """
    first, *others = known
    newest = max((first, *others), key=lambda account: account.issued_at)
    ended = list(ended)
    revoked = dict(first.revoked)
    for account in others:
        for user, until in account.revoked.items():
            revoked[user] = max(until, revoked.get(user, 0))
    for end in ended:
        if end.forget_at > now_unix:
            revoked[end.user] = max(end.at_unix, revoked.get(end.user, 0))
    for end in ended:
        if end.forget_at <= now_unix and revoked.get(end.user, 2**40) <= end.at_unix:
            del revoked[end.user]
    if len(revoked) > REVOCATION_COUNT_MAX:
        raise UserError(f"{len(revoked)} users are revoked; an account holds at most {REVOCATION_COUNT_MAX}")
    wanted = dataclasses.replace(first, revoked=revoked, issued_at=newest.issued_at)
    if wanted == newest:
        return newest, False
    return dataclasses.replace(wanted, issued_at=max(now_unix, newest.issued_at + 1)), True


def push(directory: Directory, ended: Iterable[Ended], now_unix: int) -> Outcome:
    """Publish the account to every server of the regions.  Raises UserError if none of them can be reached."""
    pusher = _Pusher(directory, now_unix)
    found, failed, order = _ask(pusher)
    if len(failed) == len(pusher.hosts):
        raise UserError("no server can be reached: " + "; ".join(f"{host}: {why}" for host, why in failed.items()))
    known = [directory.account(), *found]
    account, is_new = next_account(known, ended, now_unix)
    text = directory.save_account(account)  # first: what a server may have is never unknown here
    took: dict[str, None] = {}
    for host in order:
        if host in took or host in failed:
            continue
        try:
            answers = pusher.publish(host, text)
        except (OSError, ConfluxError) as error:
            failed[host] = words_of(error)
            continue
        took |= dict.fromkeys(name for name, why in answers.items() if not why)
        failed |= {name: why for name, why in answers.items() if why}
        if host not in answers:
            failed[host] = "it did not answer"
    return Outcome(account, is_new, tuple(took), {host: why for host, why in failed.items() if host not in took})


def _ask(pusher: _Pusher) -> tuple[list[AccountJwt], dict[str, str], list[str]]:
    """Return the accounts that servers have; the servers that cannot be asked, with the reason; all, quick ones first.

    One that hangs keeps the others waiting for LOOKUP_S at most, unless nobody has answered by then.
    """
    found: list[AccountJwt] = []
    failed: dict[str, str] = {}
    quick: list[str] = []
    threads = ThreadPoolExecutor(len(pusher.hosts))
    pending = {threads.submit(pusher.accounts_at, host): host for host in pusher.hosts}
    deadline = time.monotonic() + LOOKUP_S
    is_whole = False  # one of them reached all others
    while pending and not is_whole and not (found and time.monotonic() > deadline):
        done, _ = wait(pending, timeout=LOOKUP_S, return_when=FIRST_COMPLETED)
        for future in done:
            host, result = pending.pop(future), future.result()
            if isinstance(result, str):
                failed[host] = result
            else:
                found += result
                quick.append(host)
                is_whole = is_whole or len(result) >= len(pusher.hosts)
    threads.shutdown(wait=False, cancel_futures=True)
    order = quick + [host for host in pusher.hosts if host not in quick]
    return found, {host: failed[host] for host in pusher.hosts if host in failed}, order


def accounts_at(directory: Directory, host: str, now_unix: int) -> list[AccountJwt] | str:
    """Return the realm's account as a server has it, and those that it reaches; or why it cannot be asked."""
    return _Pusher(directory, now_unix).accounts_at(host)


class _Pusher:
    """A user of the system account, for the length of one command."""

    def __init__(self, directory: Directory, now_unix: int) -> None:
        user = KeyPair.generate(Kind.USER)
        self._login = Login(directory.push_jwt(user, now_unix), user.sign)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.load_verify_locations(cadata=directory.ca())
        self._operator = directory.key(OPERATOR).word
        self._account = directory.key(ACCOUNT)
        layout = directory.layout()
        self.hosts = layout.hosts
        self._port = layout.port

    def accounts_at(self, host: str) -> list[AccountJwt] | str:
        """Return the account as this server has it, and as others that it reaches do; or why it cannot be asked."""
        subject = f"$SYS.REQ.ACCOUNT.{self._account.word}.CLAIMS.LOOKUP"
        found: list[AccountJwt] = []
        try:
            with self._connect(host) as client:
                for answer in client.request(subject, wait_s=LOOKUP_S):
                    if answer.payload:
                        found += self._accounts_in(answer.payload)
                    if len(found) >= len(self.hosts):
                        break
        except (OSError, ConfluxError) as error:
            return words_of(error)
        return found

    def _accounts_in(self, payload: bytes) -> list[AccountJwt]:
        """Return the account of an answer; nothing if it is not one that this operator signed.  Raises UserError."""
        text = payload.decode("ascii", "replace")
        try:
            opened = open_untrusted(text)
        except RemoteProtocolError:
            return []
        if (opened.issuer, opened.subject) != (self._operator, self._account.word):
            return []
        try:
            return [AccountJwt.decode_untrusted(text)]
        except RemoteProtocolError as error:
            raise UserError(f"a server has an account that another program wrote ({error})") from None

    def publish(self, host: str, text: str) -> dict[str, str]:
        """Return the servers that answered, by name, each with what it has against the account, or ""."""
        answers: dict[str, str] = {}
        deadline = time.monotonic() + ANSWER_S
        with self._connect(host) as client:
            for answer in client.request("$SYS.REQ.CLAIMS.UPDATE", text.encode(), wait_s=ANSWER_S):
                if answer.status is not None:
                    raise ServerError("no server listens for accounts")
                name, why = _verdict(answer.payload)
                if name:
                    answers[name] = why
                if answers.keys() >= set(self.hosts) or time.monotonic() > deadline:
                    break
        return answers

    def _connect(self, host: str) -> Client:
        try:
            return Client.open(host, self._port, self._login, tls=self._tls, wait_s=CONNECT_S)
        except OSError as error:
            raise OSError(f"{at(host, self._port)}: {words_of(error)}") from None


def _verdict(payload: bytes) -> tuple[str, str]:
    """Return the name of the server that answered, and what it has against the account: "" for nothing."""
    try:
        answer = json.loads(payload)
        name = answer["server"]["name"]
        error = answer.get("error")
        why = "" if error is None else str(error.get("description", error))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return "", ""
    if not (isinstance(name, str) and len(name) <= NAME_CHARS_MAX and name.isprintable()):
        return "", ""
    return name, quoted(why)
