"""The record of what an issuer did: every act is on it, and none can be changed, left out or put between."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from kit.builders import NOW_UNIX, node_keys, signing_key
from kit.office import REALM, Log, Office, request_as, request_of

from conflux.errors import RemoteProtocolError
from conflux.realm.audit import LINE_BYTES_MAX, Act, Broken, Entry, decode_line, note, verified
from conflux.realm.issued import End
from conflux.realm.issuer import EARLY_BURST, REFUSAL_BURST

KEY = signing_key("issuer")
ALPHA = node_keys("alpha").node_id


def written(count: int = 4) -> Log:
    log = Log()
    for number in range(count):
        note(log, KEY, REALM.anchor.realm_id, Act.INVITED, at=NOW_UNIX + number, detail=f"d{number}")
    return log


def read(lines: list[bytes]) -> list[Entry]:
    return list(verified(lines, KEY.public, REALM.anchor.realm_id))


def test_record_that_nobody_touched_holds():
    entries = read(written().lines)
    assert [(entry.number, entry.at, entry.detail) for entry in entries] == [
        (number + 1, NOW_UNIX + number, f"d{number}") for number in range(4)
    ]


def test_record_without_its_oldest_lines_holds():
    assert [entry.number for entry in read(written().lines[2:])] == [3, 4]


def resigned(line: bytes, key=KEY, **fields) -> bytes:
    """The line with other fields, signed anew."""
    log = Log()
    entry = dataclasses.replace(decode_line(line), **fields)
    log.head = lambda: type(written().head())(entry.number - 1, entry.before)
    note(log, key, REALM.anchor.realm_id, Act(entry.what), at=entry.at, detail=entry.detail)
    return log.lines[0]


@pytest.mark.parametrize(
    ("number", "why", "change"),
    [
        (2, "damaged", lambda lines: lines[1].__class__(b"x" + lines[1])),
        (2, "damaged", lambda lines: b""),
        (3, "missing", lambda lines: None),
        (3, "changed", lambda lines: resigned(lines[1], detail="other")),
        (2, "not signed", lambda lines: resigned(lines[1], signing_key("mallory"))),
    ],
)
def test_line_that_is_changed_or_left_out_is_found(number, why, change):
    lines = written().lines
    new = change(lines)
    lines[1:2] = [] if new is None else [new]
    if why == "missing":
        number = 2
    with pytest.raises(Broken, match=why) as caught:
        read(lines)
    assert caught.value.number == number


def test_line_of_another_realm_is_found():
    with pytest.raises(Broken, match="not signed"):
        list(verified(written().lines, KEY.public, bytes(16)))


def test_beginning_that_is_none_is_found():
    with pytest.raises(Broken, match="does not begin"):
        read([resigned(written().lines[1], before=bytes(32))])


def test_longest_entry_fits_a_line():
    log = Log()
    note(
        log,
        KEY,
        REALM.anchor.realm_id,
        Act.REPAIRED,
        at=2**40,
        node=bytes(16),
        name="n" * 63,
        detail="\U0001f600" * 300,
    )
    assert len(log.lines[0]) <= LINE_BYTES_MAX
    assert len(read(log.lines)[0].detail) == 200


@pytest.mark.parametrize("line", [b"", b"!", b"A" * (LINE_BYTES_MAX + 1), base64.b64encode(b"\x80")])
def test_line_that_is_none_is_refused(line):
    with pytest.raises(RemoteProtocolError):
        decode_line(line)


# ── what is on it ──


def test_every_act_of_an_issuer_is_on_record_before_it_takes_effect():
    office = Office()
    token = office.invite()
    invite = office.records.invitations[token.invite_id]
    office.issuer.invite(invite, now_unix=NOW_UNIX)
    chain = office.join(token, "alpha").chain
    office.issuer.renew(chain, now_unix=NOW_UNIX)
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="beta", tags=("t",))
    assert office.refusal(request_of(token)) == "used-up"
    office.issuer.join(request_as(office.invite(replaces=ALPHA), "gamma", "beta"), binding=b"B" * 32, now_unix=NOW_UNIX)
    office.issuer.end(node_keys("gamma").node_id, End.REVOKED, now_unix=NOW_UNIX, reason="stolen")
    office.issuer.withdraw(invite, now_unix=NOW_UNIX)
    assert office.records.log.acts() == [
        ("invited", ""),
        ("admitted", "alpha"),
        ("renewed", "alpha"),
        ("renamed", "beta"),
        ("changed", "beta"),
        ("refused", "alpha"),
        ("replaced", "beta"),
        ("admitted", "beta"),
        ("revoked", "beta"),
        ("withdrew", ""),
    ]
    assert read(office.records.log.lines)[-2].detail == "stolen"


def test_what_cannot_be_put_on_record_is_not_done():
    class Full(Exception):
        pass

    def full(line: bytes) -> None:
        raise Full

    office = Office()
    chain = office.join(office.invite(), "alpha").chain
    before = dict(office.records.nodes)
    office.records.log.append = full
    for act in (
        lambda: office.join(office.invite(), "beta"),
        lambda: office.issuer.renew(chain, now_unix=NOW_UNIX),
        lambda: office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="beta"),
        lambda: office.issuer.end(ALPHA, End.REVOKED, now_unix=NOW_UNIX),
    ):
        with pytest.raises(Full):
            act()
    assert office.records.nodes == before


def test_a_stranger_leaves_no_trace_and_who_holds_a_token_not_many():
    office = Office()
    token = office.invite()
    office.join(token, "alpha")
    lines = len(office.records.log.lines)
    stranger = dataclasses.replace(token, secret=bytes(16))
    assert office.refusal(request_of(stranger, "beta")) == "bad-proof"
    assert office.refusal(request_of(dataclasses.replace(token, invite_id=bytes(8)), "beta")) == "unknown-invite"
    assert len(office.records.log.lines) == lines
    for _ in range(int(REFUSAL_BURST) + 30):
        office.refusal(request_of(token, "beta"))
    assert len(office.records.log.lines) == lines + REFUSAL_BURST
    office.refusal(request_of(token, "beta"), now_unix=NOW_UNIX + 600)
    assert len(office.records.log.lines) == lines + REFUSAL_BURST + 1


def test_a_member_that_renews_all_the_time_does_not_push_the_record_out():
    office = Office()
    chain = office.join(office.invite(), "alpha").chain
    lines = len(office.records.log.lines)
    reasons = []
    for minute in range(0, 24 * 60, 5):
        try:
            office.issuer.renew(chain, now_unix=NOW_UNIX + 60 * minute)
        except RemoteProtocolError as error:
            reasons.append(error.reason)
    assert set(reasons) == {"too-soon"}
    assert len(office.records.log.lines) - lines == EARLY_BURST + 23
    other = office.join(office.invite(), "beta", now_unix=NOW_UNIX).chain
    office.issuer.renew(other, now_unix=NOW_UNIX)


def test_a_renewal_that_is_due_never_waits():
    office = Office()
    chain = office.join(office.invite(lifetime_s=300), "alpha").chain
    for number in range(30):
        chain = office.issuer.renew(chain, now_unix=NOW_UNIX + 200 * (number + 1))


def test_who_waits_for_a_person_under_ever_other_names_does_not_push_the_record_out():
    office = Office()
    token = office.invite(approve=True)
    for number in range(100):
        assert office.refusal(request_as(token, "alpha", f"name-{number}")) == "waiting"
    assert len(office.records.log.lines) == REFUSAL_BURST


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\x9b", "\u202e"])
def test_no_word_of_an_act_damages_the_record(sign):
    log = written()
    note(log, KEY, REALM.anchor.realm_id, Act.REFUSED, at=NOW_UNIX, detail=f"a{sign}b")
    assert read(log.lines)[-1].detail == "a?b"
