"""The two messages of a resumption and its key schedule, against known answers that were made without this program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conflux.crypto import kdf
from conflux.crypto.exchange import ML_CIPHERTEXT_BYTES, ML_PUBLIC_BYTES, Share, answer
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError
from conflux.stream.resume import Ends, Resume, Resumed, Schedule, Terms

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "resume.json").read_text())
ENDS = {key: bytes.fromhex(value) for key, value in VECTORS["ends"].items()}
SCHEDULE = Schedule(ENDS["realm"])


def known(name: str) -> dict[str, bytes]:
    return {key: bytes.fromhex(value) for key, value in VECTORS[name].items()}


def test_first_secret_of_a_handshake():
    of = known("handshake")
    assert SCHEDULE.first(of["secret"], of["open"], of["accept"]) == of["rs"]


@pytest.mark.parametrize("name", ["without_kem", "with_kem"])
def test_every_step_of_the_schedule(name):
    of = known(name)
    a, b, rs = ENDS["a"], ENDS["b"], bytearray(of["rs"])
    assert SCHEDULE.ask_id(rs, a, b) == of["ask_id"]
    assert SCHEDULE.back_id(rs, a, b) == of["back_id"]
    early = SCHEDULE.early(rs, Ends(a, b, ENDS["boot_a"], ENDS["boot_b"]))
    assert early == of["early"]
    resume = Resume.decode_untrusted(of["resume"])
    ahead = SCHEDULE.unseal_ahead(early, resume)
    assert ahead.encode() == of["ahead"]
    assert SCHEDULE.seal_ahead(early, resume.head(), ahead) == resume.box
    assert len(resume.ml_public) == (ML_PUBLIC_BYTES if name == "with_kem" else 0)
    hs = SCHEDULE.handshake(early, of["fresh"])
    assert hs == of["hs"]
    resumed, digest = Resumed.decode_untrusted(of["resumed"]), kdf.sha256(of["resume"])
    back = SCHEDULE.unseal_back(hs, digest, resumed)
    assert back.encode() == of["back"]
    assert SCHEDULE.seal_back(hs, digest, resumed.head(), back) == resumed.box
    master = SCHEDULE.master(hs, of["resume"], of["resumed"])
    assert master == of["master"]
    for of_asker, word in ((True, "stream_of_asker"), (False, "stream_of_answerer")):
        keys = SCHEDULE.stream_keys(master, of_asker=of_asker, aead=2)
        data, feedback = keys.data, keys.feedback
        assert data.key + data.nonce_prefix + feedback.key + feedback.nonce_prefix + keys.chain == of[word]
    ours, theirs = (SCHEDULE.link_keys(master, of_asker=of_asker, aead=2) for of_asker in (True, False))
    assert ours.key_out + ours.key_in + ours.iv_out + ours.iv_in == of["link"]
    assert (ours.key_in, ours.key_out, ours.iv_in, ours.iv_out) == theirs[1:]
    assert SCHEDULE.next(master) == of["next"]


def test_the_second_known_answer_goes_on_from_the_first():
    assert known("with_kem")["rs"] == known("without_kem")["next"]


def test_a_box_opens_under_no_other_message():
    of = known("without_kem")
    hs, resumed = bytearray(of["hs"]), Resumed.decode_untrusted(of["resumed"])
    with pytest.raises(AuthError):
        SCHEDULE.unseal_back(hs, kdf.sha256(of["resume"] + b"x"), resumed)


@pytest.mark.parametrize("with_ml", [False, True])
def test_both_ends_of_an_exchange_have_the_same_secret(with_ml):
    share = Share.generate(with_ml=with_ml)
    agreed = answer(share.x_public, share.ml_public)
    assert len(agreed.public.ml_ciphertext) == (ML_CIPHERTEXT_BYTES if with_ml else 0)
    assert share.agree(agreed.public.x_public, agreed.public.ml_ciphertext) == agreed.secret
    assert any(agreed.secret[:32]) == with_ml
    share.erase()
    assert share.is_erased
    assert "erased" in repr(share)
    with pytest.raises(LocalProtocolError):
        share.agree(agreed.public.x_public, agreed.public.ml_ciphertext)


@pytest.mark.parametrize(
    ("x_public", "ml_public"), [(bytes(32), b""), (b"\1" + bytes(31), b""), (b"\t" + bytes(31), b"short")]
)
def test_a_bad_key_is_refused(x_public, ml_public):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        answer(x_public, ml_public)


@pytest.mark.parametrize("with_ml", [False, True])
def test_a_ciphertext_where_none_belongs_or_none_where_one_does_is_refused(with_ml):
    share = Share.generate(with_ml=with_ml)
    other = answer(Share.generate(with_ml=False).x_public, b"")
    with pytest.raises(RemoteProtocolError, match="malformed"):
        share.agree(other.public.x_public, b"" if with_ml else bytes(ML_CIPHERTEXT_BYTES))
    with pytest.raises(RemoteProtocolError, match="malformed"):
        share.agree(bytes(32), bytes(ML_CIPHERTEXT_BYTES) if with_ml else b"")


@pytest.mark.parametrize("record", [Resume, Resumed, Terms])
def test_bytes_that_are_no_message_are_refused(record):
    for data in (b"", b"\x80", b"\x84\x01\x40\x40\x40", bytes(64)):
        with pytest.raises(RemoteProtocolError):
            record.decode_untrusted(data)
