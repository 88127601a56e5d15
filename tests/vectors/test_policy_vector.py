"""policy.json: a policy that was published once is taken by every later version."""

import json
from pathlib import Path

from conflux.realm.anchor import RealmAnchor
from conflux.realm.listbook import ListBook
from conflux.realm.policy import PolicyHead, SignedPolicy
from conflux.realm.policybook import PolicyBook

VECTOR = json.loads(Path(__file__).with_name("policy.json").read_text())


def test_published_policy_is_read_verified_and_written_as_it_was():
    head = PolicyHead.decode_untrusted(bytes.fromhex(VECTOR["head"]))
    policy = SignedPolicy.join_untrusted(head, [bytes.fromhex(piece) for piece in VECTOR["pieces"]])
    assert policy.text == VECTOR["text"].encode()
    assert (head.number, head.rank.digest.hex()) == (VECTOR["number"], VECTOR["digest"])
    assert head.encode().hex() == VECTOR["head"]
    anchor = RealmAnchor.decode_untrusted(bytes.fromhex(VECTOR["anchor"]))
    book = PolicyBook(ListBook(anchor, lambda: VECTOR["number"]), lambda: VECTOR["number"])
    assert book.learn(policy)
