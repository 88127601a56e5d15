"""A copied card: two boards with one state directory say so, and the copy becomes a node of its own at a word.

alpha (issues) ─┐
bravo ──────────┼─ br0
copy of bravo ──┘
"""

from __future__ import annotations

import shutil
from functools import partial

from rig.topology import Host, Lab, wait_for

MEET_S = 90  # a LAN of three meets within seconds; the machine may be busy


def twins(host: Host) -> list[str]:
    return [line for line in host.status().warnings if line.startswith("twin: ")]


def test_both_boards_say_it_and_the_copy_is_made_new(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, copy = (lab.host(name, lan) for name in ("alpha", "bravo", "copy"))
    realm = lab.realm(alpha, bravo)
    node = bravo.status().node
    realm.daemons["bravo"].down()
    shutil.copytree(bravo.state / "state", copy.state / "state")
    realm.restart(bravo)
    realm.restart(copy)
    for host in (bravo, copy):
        assert host.status().node.id == node.id
        (said,) = wait_for(partial(twins, host), f"{host.name}: its twin", within_s=MEET_S, logs=realm.logs())
        assert "`conflux board renew` makes a new node of it" in said

    refused = copy.conflux("board", "renew", check=False)
    assert "no terminal to ask on" in refused.stderr
    assert realm.daemons["copy"].exit_code is None

    copy.conflux("board", "renew", "--yes")
    assert realm.daemons["copy"].wait(10) == 0
    assert {path.name for path in (copy.state / "state").iterdir()} <= {"lock"}
    realm.admit(copy, realm.invite())
    new = copy.status().node
    assert (new.name, new.id != node.id) == ("copy", True)
    assert bravo.status().node.id == node.id
    # Other nodes heard the copy last: bravo starts again as a newer boot, as its unit does, although the copy's address
    # answers still.
    assert realm.daemons["bravo"].wait(MEET_S + 30) == 75, realm.tails()
    realm.restart(bravo)
    assert twins(bravo) == twins(copy) == []
    for host, other in ((bravo, "copy"), (copy, "bravo"), (alpha, "bravo")):
        assert host.conflux("ping", other, "-c", "1", check=False).returncode == 0, realm.tails()
