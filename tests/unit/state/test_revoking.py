"""Revoking in a state directory: what is on the disk afterwards, and who may."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX
from kit.founded import gate_in

from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId, format_node_id
from conflux.realm.audit import Act, Entry, decode_line
from conflux.realm.denying import Signer
from conflux.realm.invite import make_invite
from conflux.realm.issued import End
from conflux.realm.issuer import Issuer, Rights
from conflux.realm.join import JoinRequest, OfflineRequest
from conflux.realm.listbook import ListBook
from conflux.realm.lists import ListKey, ListKind, SignedList
from conflux.realm.member import Member
from conflux.state import directory
from conflux.state.directory import StateDir
from conflux.state.founding import first_block, found_realm, issuer_of, make_grant
from conflux.state.issuer_files import IssuerFiles
from conflux.state.list_files import ListFiles
from conflux.state.revoking import Revoker, as_ended, denied_rows, load_book, revoked_words

ENTROPY = random.Random(9).randbytes
BINDING = b"B" * 32


class Home:
    """A realm's founder, and a member that it let in by an invitation for three."""

    def __init__(self, path: Path) -> None:
        self.state = gate_in(path / "gate")
        self.gate = self.state.member()
        self.other = StateDir.open(path / "kitchen", create=True)
        invite, token = make_invite(self.gate.anchor, self.gate.node_id, now_unix=NOW_UNIX, entropy=ENTROPY, count=3)
        IssuerFiles(self.state).save_invite(invite)
        keys = self.other.make_node_keys()
        request = JoinRequest.build(token, keys, "kitchen", binding=BINDING, nonce=ENTROPY(32))
        chain = self.issuer.join(request, binding=BINDING, now_unix=NOW_UNIX).chain
        self.kitchen = Member(keys, self.gate.anchor, chain)
        self.other.save_member(self.kitchen)

    @property
    def issuer(self):
        return issuer_of(self.state, self.gate)

    def record(self, node: NodeId):
        return next(entry for entry in IssuerFiles(self.state).issued() if entry.node_id == node)

    def audit(self) -> list[Entry]:
        lines = IssuerFiles(self.state).audit(self.gate.realm_id).lines()
        return [decode_line(line) for line in lines]

    def replace(self, node: NodeId) -> NodeId:
        """Let another board come in a node's place, under its name; return its id."""
        keys = StateDir.open(self.state.path.parent / "new", create=True).make_node_keys()
        request = OfflineRequest.build(keys, self.record(node).name, nonce=bytes(32))
        self.issuer.admit(request, now_unix=NOW_UNIX + 1, rights=Rights(replaces=node))
        return keys.node_id

    def settle(self) -> list[SignedList]:
        """Have the lists say what the records say; return what was published."""
        book, published = self.book(), []

        def publish(signed: SignedList) -> None:
            published.append(signed)
            book.learn(signed)

        Revoker(self.state, self.gate).settle(book, publish, now_unix=NOW_UNIX + 9)
        return published

    def book(self) -> ListBook:
        return load_book(ListFiles(self.state), self.gate, lambda: NOW_UNIX)

    def revoke(self, node: NodeId, **options):
        given = {"reason": "stolen", "now_unix": NOW_UNIX + 5, **options}
        return Revoker(self.state, self.gate).revoke(self.book(), node, **given)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_revoked_node_is_denied_after_a_restart_and_its_name_and_address_are_free(home):
    done = home.revoke(home.kitchen.node_id)
    assert (done.node, done.name) == (home.kitchen.node_id, "kitchen")
    assert home.book().denies(home.kitchen.node_id)
    request = OfflineRequest.build(StateDir.open(home.other.path).node_keys(), "x", nonce=bytes(32))
    assert request.node_id == home.kitchen.node_id  # it keeps its keys
    spare = StateDir.open(home.state.path.parent / "spare", create=True).make_node_keys()
    chain = home.issuer.admit(OfflineRequest.build(spare, "kitchen", nonce=bytes(32)), now_unix=NOW_UNIX + 6).chain
    assert chain.credential.name == "kitchen"


def test_revoked_node_is_not_renewed(home):
    home.revoke(home.kitchen.node_id)
    with pytest.raises(RemoteProtocolError, match="ended"):
        home.issuer.renew(home.kitchen.chain, now_unix=NOW_UNIX + 6)


def test_invitation_that_let_the_node_in_is_cancelled(home):
    done = home.revoke(home.kitchen.node_id)
    assert len(done.cancelled) == 1
    assert IssuerFiles(home.state).invites() == []
    assert home.revoke(home.kitchen.node_id).cancelled == ()
    acts = [entry.what for entry in home.audit()]
    assert acts[-2:] == [Act.WITHDREW, Act.REVOKED]


def test_a_crash_before_the_list_is_written_leaves_everything_as_it_was(home, monkeypatch):
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StateDir, "save_record", crash)
    with pytest.raises(KeyboardInterrupt):
        home.revoke(home.kitchen.node_id)
    monkeypatch.undo()
    assert not home.book().denies(home.kitchen.node_id)
    assert "kitchen" in {entry.name for entry in IssuerFiles(home.state).issued()}


def test_a_crash_after_it_denies_the_node_and_can_be_made_good(home, monkeypatch):
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Issuer, "revoke", crash)
    with pytest.raises(KeyboardInterrupt):
        home.revoke(home.kitchen.node_id)
    monkeypatch.undo()
    assert home.book().denies(home.kitchen.node_id)
    home.revoke(home.kitchen.node_id)
    assert home.record(home.kitchen.node_id).end == End.REVOKED


def test_nodes_are_found_by_name_id_and_address_on_the_record(home):
    revoker, kitchen = Revoker(home.state, home.gate), home.kitchen
    for word in ("kitchen", format_node_id(kitchen.node_id), str(kitchen.chain.credential.ipv4)):
        assert revoker.find(word) == kitchen.node_id
    assert revoker.find("cellar") is None


def test_member_that_issues_nothing_revokes_nobody(home):
    with pytest.raises(UserError, match="does not issue"):
        Revoker(home.other, home.kitchen)


def test_node_does_not_revoke_itself(home):
    with pytest.raises(UserError, match="itself"):
        home.revoke(home.gate.node_id)


def test_issuer_is_revoked_with_the_roots_key_and_not_without(home):
    barn = StateDir.open(home.state.path.parent / "barn", create=True).make_node_keys()
    request = OfflineRequest.build(barn, "barn", nonce=bytes(32))
    home.issuer.admit(request, now_unix=NOW_UNIX, rights=Rights(capabilities=("issuer",)))
    root = home.state.root_key()
    home.state.remove(directory.ROOT_KEY)
    with pytest.raises(UserError, match="root key"):
        home.revoke(barn.node_id)
    assert home.book().rows() == ()
    home.state.save_root_key(root)
    assert home.revoke(barn.node_id).signed.grant is None
    assert home.book().denies(barn.node_id)


def test_root_key_of_another_realm_signs_nothing_here(home, tmp_path):
    stranger = StateDir.open(tmp_path / "stranger", create=True)
    found_realm(stranger, "elsewhere", "x", now_unix=NOW_UNIX, entropy=ENTROPY)
    home.state.remove(directory.ROOT_KEY)
    home.state.save_root_key(stranger.root_key())
    assert home.revoke(home.kitchen.node_id).signed.grant is not None


def test_lists_under_an_older_grant_are_signed_anew(home):
    home.revoke(home.kitchen.node_id)
    assert home.settle() == []
    root, keys = home.state.root_key(), home.gate.keys
    block = first_block(home.gate.anchor.ipv4_prefix)
    grant = make_grant(root, home.gate.anchor, keys.public.encode(), block, now_unix=NOW_UNIX + 8)
    home.state.save_grant(grant)
    (again,) = home.settle()
    assert again.grant == grant
    assert home.book().find(ListKind.DENY, keys.node_id) == again


def test_board_in_whose_place_another_came_is_denied(home):
    new = home.replace(home.kitchen.node_id)
    assert not home.book().denies(home.kitchen.node_id)
    (signed,) = home.settle()
    assert [(each.node, each.reason) for each in signed.denials()] == [(home.kitchen.node_id, "replaced")]
    assert home.book().denies(home.kitchen.node_id)
    assert not home.book().denies(new)
    assert home.record(home.kitchen.node_id).end == End.REPLACED
    assert home.settle() == []


def test_node_that_left_is_not_denied(home):
    home.issuer.end(home.kitchen.node_id, End.LEFT, now_unix=NOW_UNIX + 1)
    assert home.settle() == []
    home.revoke(home.kitchen.node_id)  # its owner finds that the keys were stolen
    assert home.book().denies(home.kitchen.node_id)
    assert home.record(home.kitchen.node_id).end == End.REVOKED


def test_issuer_that_was_replaced_is_denied_by_a_person_alone(home):
    barn = StateDir.open(home.state.path.parent / "barn", create=True).make_node_keys()
    request = OfflineRequest.build(barn, "barn", nonce=bytes(32))
    home.issuer.admit(request, now_unix=NOW_UNIX, rights=Rights(capabilities=("issuer",)))
    home.replace(barn.node_id)
    assert home.settle() == []


def test_lists_that_are_gone_are_made_anew_from_the_records(home):
    home.revoke(home.kitchen.node_id)
    for kept in (home.state.path / "lists").iterdir():
        kept.unlink()
    assert not home.book().denies(home.kitchen.node_id)
    assert len(home.settle()) == 1
    assert home.book().denies(home.kitchen.node_id)


def test_end_of_long_ago_is_not_told_any_more(home):
    home.replace(home.kitchen.node_id)
    book, published = home.book(), []
    Revoker(home.state, home.gate).settle(book, published.append, now_unix=NOW_UNIX + 200 * 86400)
    assert published == []


def test_member_of_another_issuers_record_is_revoked_and_put_on_record(home):
    stranger = NodeId(b"another node id.")
    assert home.revoke(stranger).name == ""
    last = home.audit()[-1]
    assert (last.what, last.node, last.detail) == (Act.REVOKED, stranger, "stolen")


def test_name_that_is_free_again_is_the_new_boards(home):
    new = home.replace(home.kitchen.node_id)
    assert Revoker(home.state, home.gate).find("kitchen") == new


def test_members_that_another_signer_denies_count_as_ended(home):
    root = Signer(home.state.root_key(), None)
    book = home.book()
    book.learn(root.deny(book, home.kitchen.node_id, reason="lost", now_unix=NOW_UNIX + 3))
    ends = {entry.name: (entry.end, entry.ended_at) for entry in as_ended(IssuerFiles(home.state).issued(), book)}
    assert ends == {"gate": ("", 0), "kitchen": (End.REVOKED, NOW_UNIX + 3)}
    assert home.record(home.kitchen.node_id).is_member  # the root may take its word back


def test_damaged_list_stops_no_daemon_and_the_others_are_kept(home, caplog):
    home.revoke(home.kitchen.node_id)
    files = ListFiles(home.state)
    book = home.book()
    root = Signer(home.state.root_key(), None)
    files.save(root.deny(book, NodeId(b"another node id."), reason="lost", now_unix=NOW_UNIX))
    (path,) = (home.state.path / "lists").glob(f"1-{format_node_id(home.gate.node_id)}.list")
    path.write_bytes(os.urandom(100))
    path.chmod(0o600)
    assert [signed.grant for signed in files.all()] == [None]
    assert "damaged" in caplog.text


def test_list_that_cannot_be_kept_holds_all_the_same(home, monkeypatch, caplog):
    signed = home.revoke(home.kitchen.node_id).signed
    files = ListFiles(home.other)
    book = load_book(files, home.kitchen, lambda: NOW_UNIX)
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "no space left on device")))
    book.learn(signed)
    assert book.denies(home.kitchen.node_id)
    assert "not kept over a restart" in caplog.text
    monkeypatch.undo()
    files.forget(ListKey(1, home.gate.node_id))  # no-op
    assert files.all() == []


def test_who_is_denied_is_told_with_name_signer_date_and_reason(home):
    home.revoke(home.kitchen.node_id, reason="lost")
    names = {home.kitchen.node_id: "kitchen", home.gate.node_id: "gate"}
    (row,) = denied_rows(home.book(), home.gate.anchor, names)
    assert (row.node, row.name, row.by) == (format_node_id(home.kitchen.node_id), "kitchen", "gate")
    assert (row.revoked_at, row.reason) == (NOW_UNIX + 5, "lost")


def test_revoked_node_reads_what_happened_and_what_to_do(home):
    assert revoked_words(home.book(), home.kitchen) == []
    home.revoke(home.kitchen.node_id, reason="lost")
    (words,) = revoked_words(home.book(), home.kitchen)
    assert words.startswith("revoked: this node was revoked on 20")
    assert "(lost)" in words
    assert "conflux board renew; conflux join TOKEN" in words
