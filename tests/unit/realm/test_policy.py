"""The signed policy: who may publish one, which of two holds, and what no node takes."""

import dataclasses
import zlib

import pytest
from kit.builders import NOW_UNIX, make_member, make_realm
from kit.lists import ROOT, deny_list
from kit.published import CLOSED_TEXT, OPEN_TEXT, large_text, published, publisher

from conflux.control.envelope import BODY_BYTES_MAX
from conflux.crypto.kdf import sha256
from conflux.errors import LocalProtocolError, RemoteProtocolError, UserError
from conflux.policy import reading
from conflux.realm.credential import SKEW_S
from conflux.realm.listbook import ListBook
from conflux.realm.lists import Denial, DenyList, SignedList
from conflux.realm.policy import (
    PIECE_BYTES,
    PIECE_COUNT_MAX,
    TEXT_BYTES_MAX,
    PolicyHead,
    Rank,
    SignedPolicy,
)
from conflux.realm.policybook import KEPT_COUNT_MAX, PolicyBook, sign_next
from conflux.realm.signed import UNSIGNED

REALM = make_realm()


def book_of(*policies: SignedPolicy, lists: ListBook | None = None) -> PolicyBook:
    book = PolicyBook(lists or ListBook(REALM.anchor, lambda: NOW_UNIX), lambda: NOW_UNIX)
    for policy in policies:
        assert book.learn(policy)
    return book


def refusal(policy: SignedPolicy, book: PolicyBook | None = None) -> str:
    book = book_of() if book is None else book
    before = book.rank
    with pytest.raises(RemoteProtocolError) as caught:
        book.learn(policy)
    assert book.rank == before
    return caught.value.reason


def head_of(text: bytes = CLOSED_TEXT, pieces: tuple[bytes, ...] | None = None, size: int | None = None) -> PolicyHead:
    packed = (zlib.compress(text),) if pieces is None else pieces
    office = publisher()
    digests = tuple(map(sha256, packed))
    head = PolicyHead(office.chain, NOW_UNIX, len(text) if size is None else size, digests, UNSIGNED)
    return head.sign(office.keys.signing, office.realm_id)


def denied_since(since: int) -> ListBook:
    lists = ListBook(REALM.anchor, lambda: NOW_UNIX)
    content = DenyList((Denial(publisher().node_id, since, "stolen"),))
    lists.learn(SignedList.make(ROOT.key, REALM.anchor, None, 1, content))
    return lists


# ── the document ──


@pytest.mark.parametrize("text", [CLOSED_TEXT, b"\xff no text at all", large_text()], ids=["small", "bytes", "large"])
def test_text_comes_back_as_it_was_written(text):
    policy = published(text)
    head = PolicyHead.decode_untrusted(policy.head.encode())
    assert SignedPolicy.join_untrusted(head, policy.pieces).text == text


def test_policy_is_bounded_as_the_reader_of_rule_files_is():
    assert TEXT_BYTES_MAX == reading.FILE_BYTES_MAX
    with pytest.raises(LocalProtocolError):
        SignedPolicy.make(publisher(), NOW_UNIX, bytes(TEXT_BYTES_MAX + 1))
    with pytest.raises(LocalProtocolError):
        SignedPolicy.make(publisher(), NOW_UNIX, b"")


def test_head_and_piece_each_fit_a_control_message():
    assert PolicyHead.BYTES_MAX <= BODY_BYTES_MAX
    assert PIECE_BYTES + 64 <= BODY_BYTES_MAX
    assert len(published(large_text(11)).pieces) == 11 < PIECE_COUNT_MAX


def test_text_that_does_not_deflate_is_refused_above_the_bound_of_pieces():
    with pytest.raises(LocalProtocolError, match="deflated"):
        SignedPolicy.make(publisher(), NOW_UNIX, b"".join(sha256(bytes((a, b))) for a in range(256) for b in range(32)))


def test_pieces_of_another_policy_are_refused():
    policy = published(large_text())
    for pieces in (policy.pieces[:-1], policy.pieces[::-1], (*policy.pieces, b"x"), ()):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            SignedPolicy.join_untrusted(policy.head, pieces)


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (b"no deflate", 10),
        (zlib.compress(CLOSED_TEXT)[:-1], len(CLOSED_TEXT)),
        (zlib.compress(CLOSED_TEXT) + b"x", len(CLOSED_TEXT)),
        (zlib.compress(CLOSED_TEXT), len(CLOSED_TEXT) - 1),
        (zlib.compress(CLOSED_TEXT), len(CLOSED_TEXT) + 1),
        (zlib.compress(bytes(100 * TEXT_BYTES_MAX))[:PIECE_BYTES], 1000),
    ],
)
def test_text_that_is_not_what_its_head_says_is_refused(packed, size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        SignedPolicy.join_untrusted(head_of(pieces=(packed,), size=size), (packed,))


def test_head_without_a_text_is_malformed():
    for head in (head_of(size=0), head_of(pieces=())):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            PolicyHead.decode_untrusted(head.encode())


# ── who may, and what counts ──


def test_policy_of_a_member_with_the_capability_counts():
    book = book_of(published())
    assert book.current == published()
    assert book.current.text == CLOSED_TEXT


def test_policy_counts_whoever_let_its_signer_in():
    assert book_of(published(by=publisher(issuer="gate"))).current is not None


def test_policy_of_a_member_without_the_capability_is_refused():
    assert refusal(published(by=publisher(granted=False))) == "not-granted"


def test_policy_of_another_realm_is_refused():
    assert refusal(published(by=publisher(realm="cabin"))) == "foreign-realm"


def test_changed_policy_is_refused():
    head = published().head
    other = dataclasses.replace(head, number=head.number + 1)
    assert refusal(published()._replace(head=other)) == "bad-signature"
    chain = dataclasses.replace(head.chain, credential=dataclasses.replace(head.chain.credential, name="barn"))
    assert refusal(published()._replace(head=dataclasses.replace(head, chain=chain))) == "bad-signature"


def test_policy_is_signed_within_the_dates_of_its_signer():
    begins, ends = publisher().chain.newest_date, publisher().chain.not_after
    assert refusal(published(number=begins - 1)) == "not-yet-valid"
    assert refusal(published(number=ends)) == "expired"
    assert book_of(published(number=begins)).current is not None


def test_policy_of_the_future_is_refused():
    assert refusal(published(number=NOW_UNIX + SKEW_S + 1)) == "not-yet-valid"
    assert book_of(published(number=NOW_UNIX + SKEW_S)).current is not None


def test_policy_outlives_the_credential_of_its_signer():
    later = publisher().chain.not_after + 86400
    book = PolicyBook(ListBook(REALM.anchor, lambda: later), lambda: later)
    assert book.learn(published())


def test_older_policy_is_refused_and_the_same_is_no_news():
    book = book_of(published(number=NOW_UNIX))
    assert refusal(published(number=NOW_UNIX - 1), book) == "old-policy"
    assert not book.learn(published(number=NOW_UNIX))


def test_of_two_with_one_number_every_node_takes_the_same():
    one, two = published(OPEN_TEXT), published(CLOSED_TEXT, by=publisher("barn"))
    best = max(one, two, key=lambda each: each.head.rank)
    for order in ((one, two), (two, one)):
        book = book_of()
        for policy in order:
            if book.is_news(policy.head.rank):
                book.learn(policy)
        assert book.current == best


# ── signers that were revoked ──


def test_policy_signed_after_its_signer_was_revoked_is_refused():
    assert refusal(published(), book_of(lists=denied_since(NOW_UNIX))) == "revoked"
    assert refusal(published(), book_of(lists=denied_since(NOW_UNIX - 5))) == "revoked"


def test_policy_signed_before_its_signer_was_revoked_stays():
    assert book_of(published(), lists=denied_since(NOW_UNIX + 1)).current == published()


def test_node_that_hears_of_the_revocation_later_goes_back_to_the_policy_before():
    lists = ListBook(REALM.anchor, lambda: NOW_UNIX)
    before, after = published(OPEN_TEXT, NOW_UNIX - 10), published(CLOSED_TEXT, NOW_UNIX)
    book = book_of(before, after, lists=lists)
    content = DenyList((Denial(publisher().node_id, NOW_UNIX - 5, "stolen"),))
    lists.learn(SignedList.make(ROOT.key, REALM.anchor, None, 1, content))
    assert book.current == before
    assert book.earlier == ()


def test_policy_of_a_member_of_a_revoked_issuer_is_refused():
    by = publisher(issuer="gate")
    lists = ListBook(REALM.anchor, lambda: NOW_UNIX)
    lists.learn(deny_list(by.chain.credential.issuer, signer=ROOT))
    assert refusal(published(by=by), book_of(lists=lists)) == "revoked"


# ── publishing, and what is kept ──


def test_next_policy_has_a_higher_number_than_any_before_it():
    book, office = book_of(published(number=NOW_UNIX + 50)), publisher()
    assert sign_next(book, office, OPEN_TEXT, now_unix=NOW_UNIX).head.number == NOW_UNIX + 51
    assert sign_next(book_of(), office, OPEN_TEXT, now_unix=NOW_UNIX).head.number == NOW_UNIX


def test_member_without_the_capability_is_told_what_it_lacks():
    with pytest.raises(UserError, match="grant alpha --capability policy"):
        sign_next(book_of(), make_member(REALM, "alpha"), OPEN_TEXT, now_unix=NOW_UNIX)


def test_member_whose_credential_ended_publishes_nothing():
    office = publisher()
    with pytest.raises(UserError, match="renewed first"):
        sign_next(book_of(), office, OPEN_TEXT, now_unix=office.chain.not_after)


def test_few_earlier_policies_are_kept_the_newest():
    forgotten: list[Rank] = []
    lists = ListBook(REALM.anchor, lambda: NOW_UNIX)
    book = PolicyBook(lists, lambda: NOW_UNIX, forget=forgotten.append)
    policies = [published(number=NOW_UNIX - 20 + step) for step in range(KEPT_COUNT_MAX + 2)]
    for policy in policies:
        book.learn(policy)
    assert list(book.earlier) == policies[-2 : -KEPT_COUNT_MAX - 1 : -1]
    assert forgotten == [each.head.rank for each in policies[:2]]


def test_a_burst_of_policies_does_not_push_out_the_one_before():
    book = book_of()
    good = published(number=NOW_UNIX - 3600)
    book.learn(good)
    for step in range(2 * KEPT_COUNT_MAX):
        book.learn(published(number=NOW_UNIX - 60 + step))
    assert len(book.earlier) == KEPT_COUNT_MAX - 1
    assert book.earlier[-1] == good


def test_policy_is_kept_before_it_counts():
    def full(policy: SignedPolicy) -> None:
        raise OSError("no space left")

    book = PolicyBook(ListBook(REALM.anchor, lambda: NOW_UNIX), lambda: NOW_UNIX, save=full)
    with pytest.raises(OSError, match="no space"):
        book.learn(published())
    assert book.current is None


def test_what_was_kept_is_verified_anew():
    head = published().head
    forged = published()._replace(head=dataclasses.replace(head, number=head.number + 1))
    book = book_of()
    book.load([forged, published(OPEN_TEXT, NOW_UNIX - 1)])
    assert book.current == published(OPEN_TEXT, NOW_UNIX - 1)
