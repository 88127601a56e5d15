"""Chains by their digest: found again, given short, and bounded."""

from __future__ import annotations

import pytest
from kit.builders import make_credential, make_grant, make_realm, signing_key

from conflux.control import chains as module
from conflux.control.chains import Chains, digest_of, short_chain, whole_chain_untrusted
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain, Grant

REALM = make_realm()
GRANT = make_grant(REALM, signing_key("issuer")).encode()


def chain_of(name: str) -> Chain:
    """Return a member's chain, with a grant of its own object."""
    return Chain(make_credential(REALM, name, issuer=signing_key("issuer")), Grant.decode_untrusted(GRANT))


def test_a_short_chain_is_half_of_it_and_is_the_same_chain_to_who_knows_the_grant() -> None:
    chain = chain_of("bob")
    known = Chains()
    with pytest.raises(RemoteProtocolError, match="unknown-grant"):
        whole_chain_untrusted(short_chain(chain), known.grants.find_untrusted)
    known.grants.learn(chain_of("alice"))
    assert whole_chain_untrusted(short_chain(chain), known.grants.find_untrusted) == chain
    assert whole_chain_untrusted(chain.encode(), known.grants.find_untrusted) == chain
    assert len(short_chain(chain)) < 0.6 * len(chain.encode())


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x83\x01\x02\x03", b"\x83\x01\x02\x41a", b"\x01", b"\x00" * 30_000])
def test_bytes_that_are_no_chain_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        whole_chain_untrusted(data, Chains().grants.find_untrusted)


def test_chains_share_their_grant_and_the_one_not_used_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHAIN_COUNT_MAX", 2)
    alice, bob, carol = (chain_of(name) for name in ("alice", "bob", "carol"))
    known = Chains()
    first, second = known.learn(alice), known.learn(bob)
    assert first.grant is second.grant
    assert known.learn(alice) is first
    known.learn(carol)
    assert [known.find(digest_of(each)) for each in (alice, bob)] == [alice, None]
    assert len(known) == 2
