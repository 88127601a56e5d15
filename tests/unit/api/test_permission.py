"""Which users may talk to a daemon, and what they may ask."""

import inspect

import pytest

from conflux.api.operations import Operations
from conflux.api.server import Access, access_of

CONFLUX = 900


@pytest.mark.parametrize(
    ("uid", "groups", "own_uid", "group", "access"),
    [
        (0, {0}, 0, None, Access.ALL),
        (0, {0}, 1000, CONFLUX, Access.ALL),
        (1000, {1000}, 1000, None, Access.ALL),
        (1000, {1000, CONFLUX}, 0, CONFLUX, Access.LOOK),
        (1000, {1000, CONFLUX}, 0, None, Access.NOTHING),
        (1000, {1000}, 0, CONFLUX, Access.NOTHING),
        (1000, {0}, 0, None, Access.NOTHING),
        (1001, {1001}, 1000, CONFLUX, Access.NOTHING),
        (65534, (), 0, CONFLUX, Access.NOTHING),
    ],
)
def test_root_and_the_daemons_own_user_ask_everything_the_group_looks_and_nobody_else_asks(
    uid, groups, own_uid, group, access
):
    assert access_of(uid, groups, own_uid=own_uid, group=group) is access


def test_what_changes_the_node_is_not_for_those_who_may_only_look():
    fields = dict.fromkeys(inspect.signature(Operations).parameters)
    table = Operations(**fields).table()
    acting = {"down", "hand-over", "leave", "look-at-broker", "look-at-policy", "move", "reload", "revoke"}
    assert {do for do, operation in table.items() if not operation.looks} == acting
