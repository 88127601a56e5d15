"""What a node does because of messages that are not verified: each has a budget, as anybody can send such."""

from __future__ import annotations

from conflux.budget import Ration, SharedBudget

# Cards asked for because of a message that is not verified, and cards given because of one: for one neighbour or path
# of a broker, and for all of a channel.  A question without an answer is sent four times, out of a budget that this
# node's own questions have no part in (questions.py).
INTRODUCTIONS_EACH, INTRODUCTIONS_TOTAL = Ration(1.0, 8.0), Ration(2.0, 16.0)
CARDS_GIVEN_EACH, CARDS_GIVEN_TOTAL = Ration(1.0, 8.0), Ration(4.0, 32.0)
# Nodes that are asked for their card because of a question without one.  The question may be made up: 11 kB then go to
# the node that it names.  Chosen: a hundred nodes behind one bridge that look for one gateway together.
ASKED_BACK_EACH, ASKED_BACK_TOTAL = Ration(4.0, 32.0), Ration(20.0, 128.0)
SOURCE_COUNT_MAX = 1024


class Giving:
    """The budgets of one node."""

    def __init__(self) -> None:
        self.introductions = _shared(INTRODUCTIONS_EACH, INTRODUCTIONS_TOTAL)
        self.asked_back = _shared(ASKED_BACK_EACH, ASKED_BACK_TOTAL)
        self.cards_given = _shared(CARDS_GIVEN_EACH, CARDS_GIVEN_TOTAL)


def _shared(each: Ration, total: Ration) -> SharedBudget:
    return SharedBudget(each=each, total=total, count_max=SOURCE_COUNT_MAX)
