"""Consent: checks are rare while they are answered, and lost consent ends the link within half a minute."""

from __future__ import annotations

import itertools
import random

import pytest

from conflux.carrier.ice.consent import AGAIN_S, EXPIRES_S, INTERVAL_S, Consent

CHECK_S = 0.5  # until a check counts as unanswered


def checks_of(seed: int, *, answered_until: float, until: float) -> tuple[list[float], float | None]:
    """Return when checks are sent, and when consent is lost; the peer answers until a moment."""
    consent = Consent(random.Random(seed).random, now=0.0)
    now, sent = 0.0, []
    while (wait_s := consent.wait_s(now=now)) is not None:
        now += wait_s
        if now > until:
            return sent, None
        if not consent.is_due(now=now):
            continue
        sent.append(now)
        is_answered = now < answered_until
        now += 0.01 if is_answered else CHECK_S
        consent.checked(is_answered=is_answered, now=now)
    return sent, now


def test_checks_that_are_answered_come_every_16_s():
    for seed in range(50):
        sent, lost_at = checks_of(seed, answered_until=3600.0, until=3600.0)
        assert lost_at is None
        pauses = [later - earlier for earlier, later in zip([0.0, *sent], sent, strict=False)]
        assert all(0.8 * INTERVAL_S <= pause <= 1.2 * INTERVAL_S + 0.02 for pause in pauses)
        assert 188 < len(sent) < 270


def test_consent_is_lost_30_s_after_the_last_answer_and_checks_go_on_until_then():
    for seed in range(200):
        sent, lost_at = checks_of(seed, answered_until=100.0, until=3600.0)
        answered_at = max(at for at in sent if at < 100.0) + 0.01
        assert EXPIRES_S <= lost_at - answered_at + 1e-6 <= EXPIRES_S + CHECK_S + 1e-6
        unanswered = [at for at in sent if at >= 100.0]
        assert len(unanswered) >= 3, "two lost datagrams end no link"
        assert all(b - a >= 4.0 for a, b in itertools.pairwise(unanswered)), "RFC 7675: 4 s at least"


def test_an_answer_after_lost_ones_gives_consent_anew():
    consent = Consent(lambda: 0.5, now=0.0)
    consent.checked(is_answered=False, now=20.5)
    assert consent.wait_s(now=20.5) == pytest.approx(1.1 * AGAIN_S)
    consent.checked(is_answered=True, now=26.0)
    assert consent.wait_s(now=26.0) == INTERVAL_S
    assert consent.wait_s(now=56.0) is None
