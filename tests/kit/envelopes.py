"""Envelopes as a sender would make them, but for what a test changes."""

from __future__ import annotations

from kit.control import Station, boot_id

from conflux.control.envelope import Envelope, Inner, signed_message
from conflux.crypto.seal import seal
from conflux.crypto.sign import context
from conflux.ids import NodeId
from conflux.realm.member import Member


def envelope_of(payload: bytes, *, to: NodeId | None, key_id: bytes | None = None, number: int = 1) -> Envelope:
    return Envelope(to, number.to_bytes(16, "big"), 8, key_id, payload)


def inner_of(
    member: Member,
    to: NodeId | None,
    kind: int,
    body: bytes,
    *,
    seq: int = 2**40,
    boot: int = 1,
    re: int = 0,
    signer: Member | None = None,
    purpose: str = "control",
) -> bytes:
    """A message as its sender would make it, but for the arguments given."""
    signed = signed_message(to, member.node_id, boot_id(boot), seq, kind, re, body)
    key = (signer or member).keys.signing
    signature = key.sign_ed25519(context(purpose, member.realm_id), signed)
    return Inner(member.node_id, boot_id(boot), seq, kind, re, body, signature).encode()


def sealed_to(station: Station, inner: bytes, *, number: int = 1, info: bytes | None = None) -> Envelope:
    card = station.plane.own_card
    whole = context("control-seal", station.member.realm_id) + card.hop_key_id + station.node
    return envelope_of(
        seal(card.hop_public, inner, whole if info is None else info),
        to=station.node,
        key_id=card.hop_key_id,
        number=number,
    )
