"""Joining, renewing and the offline way: an issuer, a joiner, and a node in the middle."""

import dataclasses
import random
from ipaddress import IPv4Network

import pytest
from kit.builders import NOW_UNIX, make_grant, make_member, make_realm, node_keys, signing_key
from kit.office import BINDING, NONCE, REALM, Office, Records, clock, renewal_refusal, request_of

from conflux.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, Grant
from conflux.realm.invite import Token, make_invite
from conflux.realm.issued import Issued
from conflux.realm.issuer import QUARANTINE_S, Issuer, Rights, pick_address
from conflux.realm.join import (
    REFUSALS,
    JoinAnswer,
    Joiner,
    JoinRefused,
    JoinRequest,
    OfflineRequest,
    accept_offline_untrusted,
    explain_refusal,
)
from conflux.realm.member import Member


def joiner(token: Token, name: str = "alpha") -> Joiner:
    return Joiner(token, node_keys(name), name, entropy=random.Random(2).randbytes)


# ── it works ──


def test_joiner_becomes_a_member_with_what_the_invitation_grants():
    office = Office()
    token = office.invite(tags=("sensors",), capabilities=("relay",), lifetime_s=1000)
    attempt = joiner(Token.parse(token.format()))
    request = JoinRequest.decode_untrusted(attempt.request(BINDING).encode())
    answer = office.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX)
    member = attempt.accept_untrusted(answer.encode(), clock())
    assert isinstance(member, Member)
    credential = member.chain.credential
    assert (member.name, credential.tags, credential.capabilities) == ("alpha", ("sensors",), ("relay",))
    assert (credential.not_before, credential.not_after) == (NOW_UNIX, NOW_UNIX + 1000)
    assert credential.ipv4 in REALM.anchor.ipv4_prefix
    member.chain.verify(REALM.anchor, now_unix=NOW_UNIX)


def test_root_can_issue_without_a_grant():
    records = Records()
    issuer = Issuer(REALM.root, REALM.anchor, None, records)
    invite, token = make_invite(REALM.anchor, issuer.issuer_id, now_unix=NOW_UNIX, entropy=random.Random(3).randbytes)
    records.save_invite(invite)
    attempt = joiner(token)
    answer = issuer.join(attempt.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    assert attempt.accept_untrusted(answer.encode(), clock()).chain.grant is None


def test_address_and_count_are_on_record_before_anything_is_signed():
    office = Office()
    token = office.invite()
    office.join(token, "alpha")
    assert office.records.saved == ["issued", "invite"]

    class Failing(Exception):
        pass

    def fail(entry: Issued) -> None:
        raise Failing

    office.records.save_issued = fail
    with pytest.raises(Failing):
        office.join(office.invite(), "beta")


def test_secret_never_crosses_the_wire():
    office = Office()
    token = office.invite()
    request = request_of(token)
    assert token.secret not in request.encode()
    assert token.secret not in office.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX).encode()


def test_members_get_different_addresses_and_serials():
    office = Office()
    token = office.invite(count=5)
    credentials = [office.join(token, f"node-{number}").chain.credential for number in range(5)]
    assert len({credential.ipv4 for credential in credentials}) == 5
    assert [credential.serial for credential in credentials] == [1, 2, 3, 4, 5]


# ── tokens that do not admit ──


def test_used_token_admits_no_other_node():
    office = Office()
    token = office.invite()
    office.join(token, "alpha")
    assert office.refusal(request_of(token, "beta")) == "used-up"


def test_counted_token_admits_as_many_as_it_says():
    office = Office()
    token = office.invite(count=2)
    office.join(token, "alpha")
    office.join(token, "beta")
    assert office.refusal(request_of(token, "gamma")) == "used-up"


def test_joiner_whose_answer_was_lost_is_answered_again_and_not_counted_again():
    office = Office()
    token = office.invite(count=2)
    first = office.join(token, "alpha")
    again = office.join(token, "alpha", binding=b"C" * 32)
    assert again.chain.credential.ipv4 == first.chain.credential.ipv4
    assert len(office.records.invitations[token.invite_id].used) == 1
    office.join(token, "beta")


def test_expired_token_admits_no_node_from_the_second_it_ends():
    office = Office()
    token = office.invite(valid_s=100)
    assert office.refusal(request_of(token), now_unix=NOW_UNIX + 100) == "invite-expired"
    office.join(token, "alpha", now_unix=NOW_UNIX + 99)


def test_unknown_token_is_refused():
    office = Office()
    token = dataclasses.replace(office.invite(), invite_id=b"unknown!")
    assert office.refusal(request_of(token)) == "unknown-invite"


def test_wrong_secret_is_refused():
    office = Office()
    token = dataclasses.replace(office.invite(), secret=b"guess" + bytes(11))
    assert office.refusal(request_of(token)) == "bad-proof"


def test_token_of_another_issuer_is_refused():
    office = Office()
    token = dataclasses.replace(office.invite(), issuer=NodeId(bytes(16)))
    assert office.refusal(request_of(token)) == "wrong-issuer"


def test_name_of_a_living_member_is_refused_and_the_token_stays_unused():
    office = Office()
    office.join(office.invite(), "alpha")
    token = office.invite()
    impostor = JoinRequest.build(token, node_keys("beta"), "alpha", binding=BINDING, nonce=NONCE)
    assert office.refusal(impostor) == "name-taken"
    office.join(token, "beta")


def test_node_that_joins_again_keeps_its_address():
    office = Office()
    first = office.join(office.invite(), "alpha").chain.credential
    request = JoinRequest.build(office.invite(), node_keys("alpha"), "renamed", binding=BINDING, nonce=NONCE)
    second = office.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX + 1).chain.credential
    assert (second.name, second.ipv4) == ("renamed", first.ipv4)
    assert second.serial > first.serial


# ── a node in the middle ──


def test_request_relayed_on_another_connection_is_refused():
    office = Office()
    request = request_of(office.invite())
    assert office.refusal(request, binding=b"C" * 32) == "bad-proof"


@pytest.mark.parametrize(
    "change",
    [
        {"node_public": node_keys("mallory").public.encode()},
        {"name": "mallory"},
        {"nonce": bytes(32)},
        {"proof": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_field_of_a_request_can_be_changed(change):
    office = Office()
    assert office.refusal(dataclasses.replace(request_of(office.invite()), **change)) == "bad-proof"


def test_request_for_the_keys_of_another_node_is_refused():
    office = Office()
    token = office.invite()
    victim = node_keys("victim").public.encode()
    proven = JoinRequest(token.issuer, token.invite_id, victim, "victim", NONCE, bytes(32), b"")
    proven = dataclasses.replace(proven, proof=proven._proof(token.secret, BINDING))
    forged = proven.sign(node_keys("mallory").signing, token.realm_id, binding=BINDING)
    assert office.refusal(forged) == "bad-signature"


def test_bytes_that_are_no_keys_are_refused():
    office = Office()
    token = office.invite()
    proven = JoinRequest(token.issuer, token.invite_id, b"\xff" * 1984, "x", NONCE, bytes(32), bytes(3373))
    proven = dataclasses.replace(proven, proof=proven._proof(token.secret, BINDING))
    assert office.refusal(proven) in ("malformed", "bad-signature")


def refusal_of_answer(attempt: Joiner, answer: JoinAnswer | bytes, now_unix: int = NOW_UNIX) -> str:
    data = answer if isinstance(answer, bytes) else answer.encode()
    with pytest.raises(RemoteProtocolError) as caught:
        attempt.accept_untrusted(data, clock(now_unix))
    return caught.value.reason


def test_answer_of_a_foreign_realm_is_refused():
    office, elsewhere = Office(), make_realm("elsewhere")
    attempt = joiner(office.invite())
    request = attempt.request(BINDING)
    stranger = make_member(elsewhere, "alpha")
    answer = JoinAnswer(elsewhere.anchor, stranger.chain, request.digest, b"").sign(
        elsewhere.root, elsewhere.anchor.realm_id, binding=BINDING
    )
    assert refusal_of_answer(attempt, answer) == "foreign-realm"


def test_answer_of_another_issuer_of_the_realm_is_refused():
    attempt = joiner(Office().invite())
    request = attempt.request(BINDING)
    chain = make_member(REALM, "alpha").chain  # signed by the root, and the token names the issuer
    answer = JoinAnswer(REALM.anchor, chain, request.digest, b"").sign(
        REALM.root, REALM.anchor.realm_id, binding=BINDING
    )
    assert refusal_of_answer(attempt, answer) == "wrong-issuer"


def test_answer_by_a_mere_member_is_refused():
    office = Office()
    attempt = joiner(office.invite())
    answer = office.issuer.join(attempt.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    forged = answer.sign(node_keys("mallory").signing, REALM.anchor.realm_id, binding=BINDING)
    assert refusal_of_answer(attempt, forged) == "bad-signature"


def test_answer_to_another_node_or_request_is_refused():
    office = Office()
    token = office.invite(count=2)
    attempt = joiner(token)
    attempt.request(BINDING)
    assert refusal_of_answer(attempt, office.join(token, "beta")) == "wrong-answer"
    old = office.join(token, "alpha")
    attempt.request(BINDING)
    assert refusal_of_answer(attempt, old) == "wrong-answer"


def test_answer_from_another_connection_is_refused():
    office = Office()
    attempt = joiner(office.invite())
    answer = office.issuer.join(attempt.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    attempt._binding = b"C" * 32
    assert refusal_of_answer(attempt, answer) == "bad-signature"


def test_answer_with_another_name_is_refused():
    office = Office()
    attempt = joiner(office.invite())
    request = attempt.request(BINDING)
    answer = office.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX)
    renamed = dataclasses.replace(answer.chain.credential, name="other").sign(office.key, REALM.anchor.realm_id)
    chain = dataclasses.replace(answer.chain, credential=renamed)
    renaming = dataclasses.replace(answer, chain=chain).sign(office.key, REALM.anchor.realm_id, binding=BINDING)
    assert refusal_of_answer(attempt, renaming) == "wrong-answer"


def test_unasked_answer_is_refused():
    office = Office()
    token = office.invite()
    assert refusal_of_answer(joiner(token), office.join(token, "alpha")) == "wrong-answer"


@pytest.mark.parametrize("data", [b"", b"\x80", bytes(100), b"\xff" * 40000])
def test_answer_of_nonsense_is_refused(data):
    attempt = joiner(Office().invite())
    attempt.request(BINDING)
    assert refusal_of_answer(attempt, data) in ("malformed", "oversized", "version")


# ── clocks ──


def test_board_without_a_clock_joins_and_learns_the_date():
    office = Office()
    attempt = joiner(office.invite())
    answer = office.issuer.join(attempt.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    board = clock(now_unix=0)
    attempt.accept_untrusted(answer.encode(), board)
    assert board.now_unix() == NOW_UNIX
    assert board.warning() is not None


def test_device_whose_clock_is_far_ahead_is_told_that_its_credential_is_expired():
    office = Office()
    attempt = joiner(office.invite())
    answer = office.issuer.join(attempt.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    assert refusal_of_answer(attempt, answer, now_unix=NOW_UNIX + 2 * CREDENTIAL_LIFETIME_S) == "expired"


# ── the issuer's own limits ──


def test_credential_never_outlives_the_grant():
    office = Office(grant_ends=NOW_UNIX + 50)
    answer = office.join(office.invite(), "alpha")
    assert answer.chain.credential.not_after == NOW_UNIX + 50
    assert office.refusal(request_of(office.invite(), "beta"), now_unix=NOW_UNIX + 50) == "grant-expired"


def test_full_block_is_refused_and_long_expired_nodes_make_room():
    block = IPv4Network((REALM.anchor.ipv4_prefix.network_address, 30))
    office = Office(block=block)
    office.join(office.invite(lifetime_s=10), "alpha")
    office.join(office.invite(lifetime_s=1000), "beta")
    token = office.invite(valid_s=2 * QUARANTINE_S)
    assert office.refusal(request_of(token, "gamma")) == "no-address"
    late = NOW_UNIX + 10 + QUARANTINE_S
    assert office.join(token, "gamma", now_unix=late).chain.credential.ipv4 in block
    assert node_keys("alpha").node_id not in office.records.nodes


def test_addresses_of_a_block_are_used_up_to_the_last_host():
    block = IPv4Network("10.0.0.0/28")
    taken: set = set()
    for number in range(14):
        taken.add(pick_address(block, NodeId(bytes([number]) * 16), taken))
    assert taken == set(block.hosts())
    with pytest.raises(RemoteProtocolError, match="no-address"):
        pick_address(block, NodeId(bytes(16)), taken)


def test_issuer_with_a_key_that_is_not_its_own_is_our_bug():
    grant: Grant = make_grant(REALM, signing_key("issuer"))
    for key, with_grant in ((REALM.root, grant), (signing_key("issuer"), None)):
        with pytest.raises(LocalProtocolError):
            Issuer(key, REALM.anchor, with_grant, Records())


def test_binding_of_wrong_size_is_our_bug():
    office = Office()
    request = request_of(office.invite())
    with pytest.raises(LocalProtocolError):
        office.issuer.join(request, binding=b"", now_unix=NOW_UNIX)


# ── renewal ──


def test_renewal_prolongs_and_changes_nothing_else():
    office = Office()
    old = office.join(office.invite(tags=("t",), capabilities=("relay",), lifetime_s=900), "alpha").chain
    new = office.issuer.renew(old, now_unix=NOW_UNIX + 600)
    new.verify(REALM.anchor, now_unix=NOW_UNIX + 1499)
    assert new.credential.not_after == NOW_UNIX + 1500
    assert new.credential.serial > old.credential.serial
    kept = ("node_public", "name", "tags", "capabilities", "ipv4", "issuer")
    assert [getattr(new.credential, field) for field in kept] == [getattr(old.credential, field) for field in kept]


def test_expired_credential_is_not_renewed():
    office = Office()
    chain = office.join(office.invite(lifetime_s=900), "alpha").chain
    assert renewal_refusal(office, chain, NOW_UNIX + 900) == "expired"


def test_credential_of_another_issuer_or_realm_is_not_renewed():
    office = Office()
    assert renewal_refusal(office, make_member(REALM, "alpha").chain) == "wrong-issuer"
    assert renewal_refusal(office, make_member(make_realm("elsewhere"), "alpha").chain) == "foreign-realm"


def test_forgotten_node_is_not_renewed():
    office = Office()
    chain = office.join(office.invite(), "alpha").chain
    office.records.nodes.clear()
    assert renewal_refusal(office, chain) == "unknown-node"


# ── offline ──


def offline(name: str = "alpha") -> OfflineRequest:
    return OfflineRequest.build(node_keys(name), name, nonce=NONCE)


def test_request_file_is_signed_and_carried_back():
    office = Office()
    request = OfflineRequest.decode_untrusted(offline().encode())
    answer = office.issuer.admit(request, now_unix=NOW_UNIX, rights=Rights(tags=("far",)))
    keys = node_keys("alpha")
    fingerprint = REALM.anchor.fingerprint
    member = accept_offline_untrusted(answer.encode(), request, keys, clock(), fingerprint=fingerprint)
    assert (member.name, member.chain.credential.tags) == ("alpha", ("far",))
    assert accept_offline_untrusted(answer.encode(), request, keys, clock()).node_id == keys.node_id


def test_altered_request_file_is_refused():
    office = Office()
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        office.issuer.admit(dataclasses.replace(offline(), name="beta"), now_unix=NOW_UNIX)
    assert not office.records.nodes


def test_offline_answer_is_good_for_its_request_keys_and_realm_only():
    office = Office()
    request, keys = offline(), node_keys("alpha")
    answer = office.issuer.admit(request, now_unix=NOW_UNIX).encode()
    other = OfflineRequest.build(keys, "alpha", nonce=bytes(32))
    for asked, by, fingerprint, reason in (
        (other, keys, None, "wrong-answer"),
        (request, node_keys("beta"), None, "wrong-answer"),
        (request, keys, make_realm("elsewhere").anchor.fingerprint, "foreign-realm"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            accept_offline_untrusted(answer, asked, by, clock(), fingerprint=fingerprint)
        assert caught.value.reason == reason


def test_online_answer_does_not_pass_for_an_offline_one():
    office = Office()
    token = office.invite()
    request = request_of(token)
    answer = office.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX)
    file_request = offline()
    passed_off = dataclasses.replace(answer, request_digest=file_request.digest)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        accept_offline_untrusted(passed_off.encode(), file_request, node_keys("alpha"), clock())


# ── words ──


def test_every_refusal_has_words():
    assert "expired" in explain_refusal("invite-expired")
    assert explain_refusal("novel") == "the issuer refused: novel"
    assert JoinRefused.decode_untrusted(JoinRefused("used-up").encode()).said == "used-up"
    assert all(len(JoinRefused(reason).encode()) <= JoinRefused.BYTES_MAX for reason in REFUSALS)


def test_bad_name_is_told_before_anything_is_sent():
    with pytest.raises(ConfigError, match="node name"):
        Joiner(Office().invite(), node_keys("alpha"), "Bad Name", entropy=random.Random(1).randbytes)
