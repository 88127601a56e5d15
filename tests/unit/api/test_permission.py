"""Which users may talk to a daemon."""

import pytest

from conflux.api.server import permitted


@pytest.mark.parametrize(
    ("uid", "own_uid", "allowed"),
    [
        (0, 0, True),
        (0, 1000, True),
        (1000, 1000, True),
        (1000, 0, False),
        (1001, 1000, False),
        (65534, 0, False),
    ],
)
def test_root_and_the_daemons_own_user_are_permitted_and_nobody_else(uid, own_uid, allowed):
    assert permitted(uid, own_uid) is allowed
