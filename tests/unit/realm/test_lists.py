"""Signed lists: who may say what, which state of a list holds, and what follows from all of them together."""

import contextlib
import dataclasses

import pytest
from kit.builders import NOW_UNIX, make_credential, make_grant, make_member, make_realm, node_keys, signing_key

from conflux.control.envelope import BODY_BYTES_MAX
from conflux.crypto.sign import ED25519_SIGNATURE_BYTES, SIGNATURE_BYTES
from conflux.errors import ConfigError, LocalProtocolError, RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.credential import GRANT_LIFETIME_S, ISSUER, Chain
from conflux.realm.denying import Signer
from conflux.realm.listbook import LIST_COUNT_MAX, ListBook
from conflux.realm.lists import (
    CA_BYTES_MAX,
    DENIED_COUNT_MAX,
    KIND_MAX,
    SERVER_COUNT_MAX,
    BrokerNotice,
    Denial,
    DenyList,
    ListKey,
    ListKind,
    SignedList,
)
from conflux.realm.signed import UNSIGNED

REALM = make_realm()
ROOT_ID = NodeId(REALM.anchor.realm_id)
ROOT = Signer(REALM.root, None)
GATE, BARN = node_keys("gate"), node_keys("barn")  # two issuers
GATE_GRANT, BARN_GRANT = make_grant(REALM, GATE.signing), make_grant(REALM, BARN.signing)
BY_GATE, BY_BARN = Signer(GATE.signing, GATE_GRANT), Signer(BARN.signing, BARN_GRANT)
ALPHA, BRAVO, CAROL = (make_member(REALM, name) for name in ("alpha", "bravo", "carol"))
NOTICE = BrokerNotice(("tls://broker.example:4222", "tls://[2001:db8::7]:4222"), b"der", "main")


def deny(*nodes: NodeId, since: int = NOW_UNIX, reason: str = "stolen") -> DenyList:
    return DenyList(tuple(Denial(node, since, reason) for node in sorted(nodes)))


def made(signer: Signer, content: DenyList | BrokerNotice, number: int = 1) -> SignedList:
    return SignedList.make(signer.key, REALM.anchor, signer.grant, number, content)


class Kept:
    """A book, and what its disk has."""

    def __init__(self, now_unix: int = NOW_UNIX) -> None:
        self.now_unix = now_unix
        self.saved: dict[ListKey, SignedList] = {}
        self.book = ListBook(REALM.anchor, lambda: self.now_unix, save=self._save, forget=self.saved.pop)

    def _save(self, signed: SignedList) -> None:
        self.saved[signed.key] = signed


def book_of(*lists: SignedList) -> ListBook:
    book = ListBook(REALM.anchor, lambda: NOW_UNIX)
    for signed in lists:
        assert book.learn(signed) is not None
    return book


def refusal(signed: SignedList, book: ListBook | None = None) -> str:
    book = ListBook(REALM.anchor, lambda: NOW_UNIX) if book is None else book
    before = book.digest
    with pytest.raises(RemoteProtocolError) as caught:
        book.learn(signed)
    assert book.digest == before
    return caught.value.reason


# ── how long a list counts ──


def test_list_is_dropped_when_its_grant_ends_and_books_are_alike_again():
    old, new = Kept(), Kept(GATE_GRANT.not_after)
    of_gate, of_root = made(BY_GATE, deny(ALPHA.node_id)), made(ROOT, deny(BRAVO.node_id))
    for signed in (of_root, of_gate):
        old.book.learn(signed)
    new.book.learn(of_root)
    old.now_unix = GATE_GRANT.not_after - 1
    assert old.book.digest != new.book.digest
    assert old.book.denies(ALPHA.node_id)
    old.now_unix = GATE_GRANT.not_after
    assert old.book.digest == new.book.digest
    assert old.book.rows() == new.book.rows()
    assert old.book.newer_than(()) == [of_root]
    assert not old.book.denies(ALPHA.node_id)
    assert old.book.denies(BRAVO.node_id)


def test_list_whose_grant_has_ended_is_asked_for_once_and_no_more():
    of_gate = made(BY_GATE, deny(ALPHA.node_id))
    (row,) = book_of(of_gate).rows()
    late = Kept(GATE_GRANT.not_after)
    assert late.book.older_than([row])
    assert refusal(of_gate, late.book) == "expired"
    assert not late.book.older_than([row])
    assert not late.book.may_be_news(of_gate)
    newer = made(BY_GATE, deny(BRAVO.node_id), 2)
    assert late.book.may_be_news(newer)
    late.now_unix -= 1  # the clock was wrong
    assert late.book.may_be_news(of_gate)
    assert late.book.learn(of_gate) is not None


def test_list_that_was_forged_under_an_ended_grant_keeps_no_true_one_out():
    late = Kept(GATE_GRANT.not_after)
    forged = dataclasses.replace(made(BY_GATE, deny(), 9), signature=bytes(SIGNATURE_BYTES))
    assert refusal(forged, late.book) == "bad-signature"
    assert late.book.may_be_news(made(BY_GATE, deny(ALPHA.node_id)))


def test_list_that_was_signed_under_an_ended_grant_keeps_none_out_under_the_next_one_whatever_its_number():
    late = Kept(GATE_GRANT.not_after)
    next_grant = make_grant(REALM, GATE.signing, not_after=late.now_unix + GRANT_LIFETIME_S)
    assert refusal(made(BY_GATE, deny(), 2**63), late.book) == "expired"
    true = made(Signer(GATE.signing, next_grant), deny(ALPHA.node_id))
    other = Kept(late.now_unix)
    other.book.learn(true)
    assert late.book.older_than(other.book.rows())
    assert late.book.may_be_news(true)
    assert late.book.learn(true) is not None


def test_clock_that_ran_ahead_costs_no_list_that_is_kept():
    kept = Kept()
    kept.book.learn(made(BY_GATE, deny(ALPHA.node_id)))
    kept.now_unix = GATE_GRANT.not_after
    assert not kept.book.denies(ALPHA.node_id)
    again = ListBook(REALM.anchor, lambda: NOW_UNIX)
    again.load(kept.saved.values())
    assert again.denies(ALPHA.node_id)


# ── who may sign ──


@pytest.mark.parametrize("signer", [ROOT, BY_GATE], ids=["root", "issuer"])
@pytest.mark.parametrize("content", [deny(ALPHA.node_id), deny(), NOTICE], ids=["deny", "deny nobody", "broker"])
def test_list_crosses_the_wire_and_verifies(signer, content):
    signed = made(signer, content)
    arrived = SignedList.decode_untrusted(signed.encode())
    assert arrived == signed
    arrived.verify(REALM.anchor, now_unix=NOW_UNIX)
    assert arrived.key == ListKey(arrived.kind, ROOT_ID if signer is ROOT else GATE.node_id)
    assert arrived.denials() == (content.denials if isinstance(content, DenyList) else ())
    assert arrived.broker() == (content if isinstance(content, BrokerNotice) else None)


def test_largest_list_fits_one_control_message():
    nodes = [NodeId(number.to_bytes(16)) for number in range(2**100, 2**100 + DENIED_COUNT_MAX)]
    largest = made(BY_GATE, deny(*nodes, since=2**40, reason="r" * 16), 2**64 - 1)
    assert len(largest.encode()) < BODY_BYTES_MAX
    with pytest.raises(RemoteProtocolError, match="malformed"):
        DenyList.decode_untrusted(deny(NodeId(bytes(16)), *nodes).encode())


def test_member_that_is_no_issuer_denies_nobody():
    own = make_grant(make_realm("elsewhere"), ALPHA.keys.signing)
    grant = dataclasses.replace(own, realm_id=REALM.anchor.realm_id)  # signed by another root
    forged = SignedList.make(ALPHA.keys.signing, REALM.anchor, grant, 1, deny(BRAVO.node_id))
    assert refusal(forged) == "bad-signature"
    assert refusal(SignedList.make(ALPHA.keys.signing, REALM.anchor, None, 1, deny(BRAVO.node_id))) == "bad-signature"
    borrowed = SignedList.make(ALPHA.keys.signing, REALM.anchor, GATE_GRANT, 1, deny(BRAVO.node_id))
    assert refusal(borrowed) == "bad-signature"


@pytest.mark.parametrize("field", ["kind", "number", "content", "grant"])
def test_nothing_of_a_list_can_be_changed(field):
    signed = made(BY_GATE, deny(ALPHA.node_id))
    other = {"kind": 3, "number": 2, "content": deny(BRAVO.node_id).encode(), "grant": None}
    assert refusal(dataclasses.replace(signed, **{field: other[field]})) == "bad-signature"


@pytest.mark.parametrize("broken", ["ed25519", "ml-dsa"])
def test_both_signatures_of_a_list_must_verify(broken):
    signed = made(BY_GATE, deny(ALPHA.node_id))
    at = 0 if broken == "ed25519" else ED25519_SIGNATURE_BYTES
    assert at < SIGNATURE_BYTES
    signature = signed.signature[:at] + bytes((signed.signature[at] ^ 1,)) + signed.signature[at + 1 :]
    assert refusal(dataclasses.replace(signed, signature=signature)) == "bad-signature"


def test_list_of_another_realm_is_refused():
    elsewhere = make_realm("elsewhere")
    assert refusal(SignedList.make(elsewhere.root, elsewhere.anchor, None, 1, deny())) == "foreign-realm"


def test_list_counts_no_longer_than_the_grant_of_its_signer():
    grant = make_grant(REALM, GATE.signing, not_after=NOW_UNIX + 10)
    kept = Kept(NOW_UNIX + 9)
    assert kept.book.learn(made(Signer(GATE.signing, grant), deny(ALPHA.node_id))) is not None
    kept.now_unix += 1
    with pytest.raises(RemoteProtocolError, match="expired"):
        kept.book.learn(made(Signer(GATE.signing, grant), deny(BRAVO.node_id), 2))
    later = ListBook(REALM.anchor, lambda: NOW_UNIX + 10)
    later.load(kept.saved.values())
    assert later.rows() == ()


@pytest.mark.parametrize(
    "content",
    [
        DenyList((Denial(BRAVO.node_id, 1, "x"), Denial(BRAVO.node_id, 1, "x"))),
        DenyList(tuple(reversed(deny(ALPHA.node_id, BRAVO.node_id).denials))),
        DenyList((Denial(BRAVO.node_id, 1, "Stolen by x"),)),
        DenyList((Denial(BRAVO.node_id, 1, "r" * 17),)),
        DenyList((Denial(BRAVO.node_id, 1, ""),)),
        DenyList((Denial(BRAVO.node_id, 2**41, "x"),)),
        DenyList((Denial(NodeId(b"short"), 1, "x"),)),
        BrokerNotice(("http://broker:4222",), b"", "main"),
        BrokerNotice(("tls://broker",), b"", "main"),
        BrokerNotice(("tls://" + "b" * 130 + ":1",), b"", "main"),
        BrokerNotice(("tls://b:1",) * (SERVER_COUNT_MAX + 1), b"", "main"),
        BrokerNotice((), bytes(CA_BYTES_MAX + 1), "main"),
        BrokerNotice((), b"", "no area"),
    ],
)
def test_malformed_content_is_refused_although_the_root_signed_it(content):
    signed = made(ROOT, content)
    assert refusal(signed) == "malformed"


def test_issuer_that_denies_itself_is_refused():
    assert refusal(made(BY_GATE, deny(GATE.node_id))) == "malformed"


def test_kind_of_a_later_version_is_kept_and_passed_on():
    unsigned = SignedList(REALM.anchor.realm_id, None, KIND_MAX, 4, b"later", UNSIGNED)
    signed = unsigned.sign(REALM.root, REALM.anchor.realm_id)
    book = book_of(signed)
    assert book.newer_than(()) == [signed]
    with pytest.raises(RemoteProtocolError, match="malformed"):
        SignedList.decode_untrusted(dataclasses.replace(signed, kind=KIND_MAX + 1).encode())


# ── which state holds ──


def test_old_number_changes_nothing():
    old, new = made(BY_GATE, deny(ALPHA.node_id), 5), made(BY_GATE, deny(ALPHA.node_id, BRAVO.node_id), 6)
    book = book_of(new)
    assert not book.may_be_news(old)
    assert book.learn(old) is None
    assert book.denies(BRAVO.node_id)
    assert book.find(ListKind.DENY, GATE.node_id) == new


def test_of_two_states_of_one_number_all_nodes_take_the_same():
    one, other = made(ROOT, deny(ALPHA.node_id), 5), made(ROOT, deny(BRAVO.node_id), 5)
    books = [ListBook(REALM.anchor, lambda: NOW_UNIX) for _ in range(2)]
    for book, order in zip(books, ([one, other], [other, one]), strict=True):
        for signed in order:
            book.learn(signed)
    assert books[0].find(ListKind.DENY, ROOT_ID) == books[1].find(ListKind.DENY, ROOT_ID)
    assert books[0].digest == books[1].digest


def test_equal_books_have_equal_digests_whatever_came_first():
    lists = [made(BY_GATE, deny(ALPHA.node_id)), made(BY_BARN, deny(BRAVO.node_id)), made(ROOT, NOTICE)]
    assert book_of(*lists).digest == book_of(*reversed(lists)).digest
    assert len({book_of(*lists[:count]).digest for count in range(4)}) == 4


def test_a_peer_gets_what_it_lacks_and_no_more():
    lists = [made(BY_GATE, deny(ALPHA.node_id), 2), made(BY_BARN, deny(BRAVO.node_id)), made(ROOT, NOTICE)]
    mine = book_of(*lists)
    theirs = book_of(made(BY_GATE, deny(), 1), lists[1])
    assert mine.newer_than(theirs.rows()) == [lists[2], lists[0]]  # the root's first
    assert theirs.older_than(mine.rows())
    assert not mine.older_than(theirs.rows())
    assert mine.newer_than(mine.rows()) == []


def test_list_is_saved_before_it_has_an_effect():
    kept = Kept()

    def full(signed: SignedList) -> None:
        assert not book.denies(ALPHA.node_id)
        raise OSError("disk full")

    book = ListBook(REALM.anchor, lambda: NOW_UNIX, save=full)
    with pytest.raises(OSError, match="disk full"):
        book.learn(made(BY_GATE, deny(ALPHA.node_id)))
    assert not book.denies(ALPHA.node_id)
    assert kept.book.learn(made(BY_GATE, deny(ALPHA.node_id))) is not None
    assert list(kept.saved) == [ListKey(ListKind.DENY, GATE.node_id)]


def test_lists_survive_a_restart_and_a_damaged_one_is_left_out():
    good, forged = made(BY_GATE, deny(ALPHA.node_id)), dataclasses.replace(made(BY_BARN, deny()), number=9)
    book = ListBook(REALM.anchor, lambda: NOW_UNIX)
    book.load([forged, good])
    assert book.denies(ALPHA.node_id)
    assert [row.key.signer for row in book.rows()] == [GATE.node_id]


def test_room_for_lists_is_bounded_and_the_roots_always_fit():
    book = ListBook(REALM.anchor, lambda: NOW_UNIX)
    for number in range(LIST_COUNT_MAX):
        key = signing_key(f"issuer {number}")
        book.learn(made(Signer(key, make_grant(REALM, key)), deny()))
    assert refusal(made(BY_GATE, deny()), book) == "list-count"
    assert book.learn(made(ROOT, deny(ALPHA.node_id))) is not None


# ── who denies whom ──


def chain_of(name: str, issuer: Signer | None = None, *capabilities: str) -> Chain:
    key = None if issuer is None else issuer.key
    credential = make_credential(REALM, name, issuer=key, capabilities=capabilities)
    return Chain(credential, None if issuer is None else issuer.grant)


def is_denied(book: ListBook, chain: Chain) -> bool:
    with contextlib.suppress(RemoteProtocolError):
        book.judge(chain)
        return False
    return True


def test_denials_of_all_signers_add_up():
    book = book_of(made(BY_GATE, deny(ALPHA.node_id)), made(BY_BARN, deny(BRAVO.node_id)))
    assert [book.denies(member.node_id) for member in (ALPHA, BRAVO, CAROL)] == [True, True, False]
    assert book.learn(made(BY_GATE, deny(), 2)).denied == frozenset()
    assert [book.denies(member.node_id) for member in (ALPHA, BRAVO, CAROL)] == [False, True, False]


def test_change_names_those_who_were_not_denied_before():
    book = book_of(made(BY_GATE, deny(ALPHA.node_id)))
    change = book.learn(made(BY_BARN, deny(ALPHA.node_id, BRAVO.node_id)))
    assert (change.denied, change.voided) == (frozenset({BRAVO.node_id}), False)


def test_issuer_denies_a_node_of_another_issuer():
    assert is_denied(book_of(made(BY_GATE, deny(ALPHA.node_id))), chain_of("alpha", BY_BARN))


@pytest.mark.parametrize(
    "chain", [chain_of("barn", BY_BARN), chain_of("barn", BY_GATE, ISSUER)], ids=["by its grant", "by its credential"]
)
def test_issuer_cannot_deny_an_issuer(chain):
    book = book_of(made(BY_GATE, deny(BARN.node_id)))
    assert not is_denied(book, chain)
    assert not book.denies(BARN.node_id)
    assert book.denials() == []


def test_root_denies_an_issuer_and_all_that_it_signed():
    kept = Kept()
    kept.book.learn(made(BY_BARN, deny(CAROL.node_id)))
    assert kept.book.denies(CAROL.node_id)
    change = kept.book.learn(made(ROOT, deny(BARN.node_id)))
    assert change.voided
    assert is_denied(kept.book, chain_of("barn", BY_GATE, ISSUER))
    assert is_denied(kept.book, chain_of("bravo", BY_BARN))
    assert not is_denied(kept.book, chain_of("alpha", BY_GATE))
    assert not kept.book.denies(CAROL.node_id)  # whom it denied is a member again
    assert list(kept.saved) == [ListKey(ListKind.DENY, ROOT_ID)]
    assert refusal(made(BY_BARN, deny(CAROL.node_id), 2), kept.book) == "revoked"


def test_books_agree_whether_the_roots_list_comes_first_or_last():
    lists = [made(BY_BARN, deny(CAROL.node_id)), made(BY_GATE, deny(ALPHA.node_id)), made(ROOT, deny(BARN.node_id))]
    books = [ListBook(REALM.anchor, lambda: NOW_UNIX) for _ in range(2)]
    for book, order in zip(books, (lists, lists[::-1]), strict=True):
        for signed in order:
            if book.may_be_news(signed):
                book.learn(signed)
    assert books[0].digest == books[1].digest
    loaded = ListBook(REALM.anchor, lambda: NOW_UNIX)
    loaded.load(lists)
    assert loaded.digest == books[0].digest


def test_why_a_node_is_denied_is_told_with_its_signer():
    book = book_of(made(BY_GATE, deny(ALPHA.node_id, since=7, reason="lost")), made(ROOT, deny(BARN.node_id)))
    (denied,) = book.denials_of(ALPHA.node_id)
    assert (denied.signer, denied.denial) == (GATE.node_id, Denial(ALPHA.node_id, 7, "lost"))
    assert [each.signer for each in book.denials_of(BRAVO.node_id, BARN.node_id)] == [ROOT_ID]
    assert [each.signer for each in book.lists_against(ALPHA.node_id)] == [GATE.node_id]
    assert book.denials_of(CAROL.node_id, GATE.node_id) == []


# ── the broker notice ──


def test_broker_notice_of_the_root_goes_before_those_of_issuers():
    assert book_of().broker() is None
    other = BrokerNotice((), b"", "other")
    assert book_of(made(BY_GATE, other, 9), made(BY_BARN, NOTICE, 8)).broker() == other
    assert book_of(made(BY_GATE, other, 9), made(ROOT, NOTICE, 1)).broker() == NOTICE


# ── the signer's part ──


def test_signer_adds_a_node_and_keeps_the_others():
    book = book_of()
    for number, member in enumerate((ALPHA, BRAVO)):
        signed = BY_GATE.deny(book, member.node_id, reason="stolen", now_unix=NOW_UNIX + number)
        assert book.learn(signed) is not None
    assert book.denies(ALPHA.node_id)
    assert book.denies(BRAVO.node_id)
    assert [each.denial.since for each in book.denials()] == [NOW_UNIX, NOW_UNIX + 1]


def test_denying_twice_makes_no_new_list():
    book = book_of(BY_GATE.deny(book_of(), ALPHA.node_id, reason="lost", now_unix=NOW_UNIX))
    assert BY_GATE.deny(book, ALPHA.node_id, reason="stolen", now_unix=NOW_UNIX + 9) == book.newer_than(())[0]


@pytest.mark.parametrize("now_unix", [NOW_UNIX, NOW_UNIX - 10**6], ids=["same second", "clock set back"])
def test_next_state_is_newer_whatever_the_clock_says(now_unix):
    first = BY_GATE.deny(book_of(), ALPHA.node_id, reason="lost", now_unix=NOW_UNIX)
    second = BY_GATE.deny(book_of(first), BRAVO.node_id, reason="lost", now_unix=now_unix)
    assert second.number == first.number + 1


def test_issuer_restored_from_a_backup_still_makes_the_newest_state():
    earlier = BY_GATE.deny(book_of(), ALPHA.node_id, reason="lost", now_unix=NOW_UNIX)
    assert BY_GATE.deny(book_of(), BRAVO.node_id, reason="lost", now_unix=NOW_UNIX + 60).number > earlier.number


def test_only_the_root_revokes_an_issuer():
    book = book_of(made(BY_BARN, deny()))
    for target in (GATE.node_id, BARN.node_id):
        with pytest.raises(UserError, match="root key"):
            BY_GATE.deny(book, target, reason="stolen", now_unix=NOW_UNIX)
    assert book.learn(ROOT.deny(book, BARN.node_id, reason="stolen", now_unix=NOW_UNIX)) is not None
    assert book.denies(BARN.node_id)


def test_full_list_drops_those_whose_credentials_ended_long_ago_or_says_so():
    nodes = [NodeId(number.to_bytes(16)) for number in range(DENIED_COUNT_MAX)]
    book = book_of(made(BY_GATE, deny(*nodes)))
    with pytest.raises(UserError, match="full"):
        BY_GATE.deny(book, ALPHA.node_id, reason="lost", now_unix=NOW_UNIX)
    signed = BY_GATE.deny(book, ALPHA.node_id, reason="lost", now_unix=NOW_UNIX, is_long_gone=nodes[:3].__contains__)
    assert {each.node for each in signed.denials()} == {ALPHA.node_id, *nodes[3:]}


def test_reason_is_one_short_word():
    for word in ("", "two words", "Stolen", "x" * 17, "-x"):
        with pytest.raises(ConfigError, match="reason"):
            BY_GATE.deny(book_of(), ALPHA.node_id, reason=word, now_unix=NOW_UNIX)


def test_lists_are_signed_again_under_a_new_grant():
    grant = make_grant(REALM, GATE.signing, not_after=NOW_UNIX + GRANT_LIFETIME_S + 1)
    book = book_of(made(BY_GATE, deny(ALPHA.node_id), 7), made(BY_GATE, NOTICE, 8))
    assert BY_GATE.resign(book, now_unix=9) == []
    again = Signer(GATE.signing, grant).resign(book, now_unix=9)
    for signed in again:
        assert book.learn(signed) is not None
    assert [(each.grant, each.number) for each in again] == [(grant, 9), (grant, 9)]
    assert book.denies(ALPHA.node_id)
    assert book.broker() == NOTICE


def test_list_larger_than_any_peer_takes_is_never_signed():
    nodes = [NodeId(number.to_bytes(16)) for number in range(2 * DENIED_COUNT_MAX)]
    with pytest.raises(LocalProtocolError):
        made(BY_GATE, deny(*nodes, since=2**40, reason="r" * 16))
