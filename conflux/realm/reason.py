"""Why the realm does not vouch for something, or does not take a node in: one table of words.

Refusals to join travel as these words; REFUSALS in join.py says which, and what a person can do about each.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reason of a RemoteProtocolError, of a drop and of a refusal."""

    # Of chains and cards.
    FOREIGN_REALM = "foreign-realm"
    WRONG_ISSUER = "wrong-issuer"  # signed by another issuer than it names
    BAD_ADDRESS = "bad-address"  # outside the block of its issuer, or of the realm
    BAD_SIGNATURE = "bad-signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    MALFORMED = "malformed"
    VERSION = "version"
    REVOKED = "revoked"  # a signed list says that the node, or its issuer, is a member no more

    # Of a signed list.
    LIST_COUNT = "list-count"  # no room for the lists of another issuer

    # Of a policy.
    NOT_GRANTED = "not-granted"  # its signer has not the capability for it
    OLD_POLICY = "old-policy"  # there is a newer one here

    # Of a request to join or to renew.
    UNKNOWN_INVITE = "unknown-invite"
    BAD_PROOF = "bad-proof"  # the joiner does not hold the secret of the invitation
    INVITE_EXPIRED = "invite-expired"
    USED_UP = "used-up"  # as many nodes joined as the invitation is for
    NAME_TAKEN = "name-taken"
    WRONG_NAME = "wrong-name"  # the invitation is for a node of another name
    TOO_MANY_NAMES = "too-many-names"  # the node had so many lately
    NO_ADDRESS = "no-address"  # the issuer's block is used up
    GRANT_EXPIRED = "grant-expired"
    UNKNOWN_NODE = "unknown-node"  # the issuer has no record of the node that wants a renewal
    EXPIRED_LONG_AGO = "expired-long-ago"  # for longer than its issuer renews what has expired
    ENDED = "ended"  # its membership was ended: it left, was replaced or revoked
    WAITING = "waiting"  # until a person approves of it
    REFUSED = "refused"  # by a person
    TOO_SOON = "too-soon"  # renewed a moment ago
    TOO_LATE = "too-late"  # the request was made for a challenge that has ended
    BUSY = "busy"

    # Of an answer to such a request.
    WRONG_ANSWER = "wrong-answer"  # it answers another request
