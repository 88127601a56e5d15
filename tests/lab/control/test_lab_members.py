"""Membership with real daemons: let in by a person, renamed, replaced, without the founder, and weeks later.

      alpha      bravo      charlie      delta        alpha founds the realm
        |          |           |           |
        +----------+--- lan ---+-----------+

Weeks pass by the realm's own clock: it is never earlier than the newest date that the realm signed, and a board keeps
that date.
"""

from __future__ import annotations

from rig.days import pass_days
from rig.topology import Host, Lab, Realm, wait_for

from conflux.cli.approval import Pending
from conflux.cli.audit import Entries
from conflux.cli.members import MemberRow, Members

DAYS = 35
WORD = "correct horse battery"


def member(host: Host, name: str) -> MemberRow:
    """What the records of an issuer say of a node."""
    rows = host.ask(Members, "realm", "members").members
    return next(row for row in rows if row.name == name and row.state in ("member", "expired"))


def reaches(source: Host, name: str) -> None:
    source.conflux("ping", name, "-c", "2", "-i", "0.2")


def test_a_person_lets_a_node_in_and_changes_it_while_it_runs(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = Realm(alpha)
    token = realm.invite(1, "--approve")
    joining = bravo.spawn("join", lab.program, "join", token, "--name", "bravo", "--config", bravo.configured())
    wait_for(lambda: alpha.ask(Pending, "realm", "pending").pending, "bravo waits", within_s=10, logs=(joining,))
    wait_for(lambda: "waiting for approval as bravo" in joining.output(), "bravo says so", within_s=5, logs=(joining,))
    alpha.conflux("realm", "approve", "bravo")
    assert joining.wait(20) == 0, joining.tail()
    realm.restart(bravo)

    # A stream that runs does not notice that its end is called otherwise and may do less.
    address = bravo.overlay_addresses()[1]
    alpha.first_answer_ms(address)
    pinging = alpha.spawn("ping", "ping", "-n", "-c", "25", "-i", "0.2", address)
    said = alpha.conflux("realm", "rename", "bravo", "cellar").stdout
    assert "it uses its new credential" in said, said + realm.tails()
    said = alpha.conflux("realm", "grant", "cellar", "--tag", "cold", "--no-capability", "relay").stdout
    assert "it uses its new credential" in said, said + realm.tails()
    assert pinging.wait(15) == 0
    assert " 0% packet loss" in pinging.output()

    status = realm.daemons["bravo"].status()
    assert (status.node.name, status.relaying) == ("cellar", "not-allowed")
    row = member(alpha, "cellar")
    assert (row.tags, row.capabilities, row.due, row.former_names) == (("cold",), (), False, ("bravo",))
    acts = [entry.what for entry in alpha.ask(Entries, "realm", "audit").entries]
    assert acts == ["admitted", "invited", "asked", "approved", "admitted", "renamed", "changed"]
    assert "the record holds" in alpha.conflux("realm", "audit", "--verify").stdout

    assert "its issuer knows" in bravo.conflux("leave", "--yes").stdout
    assert realm.daemons["bravo"].wait(10) == 0
    rows = alpha.ask(Members, "realm", "members").members
    assert {row.name: row.state for row in rows} == {"alpha": "member", "cellar": "left"}


def test_a_board_whose_disk_died_comes_back_under_its_name(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, charlie = (lab.host(name, lan) for name in ("alpha", "bravo", "charlie"))
    realm = lab.realm(alpha, bravo, charlie)
    before = bravo.overlay_addresses()
    realm.daemons["bravo"].kill()
    bravo.run("rm", "-r", bravo.state / "state")

    refused = bravo.conflux("join", realm.invite(), "--name", "bravo", check=False)
    assert "realm invite --replace NAME" in refused.stderr, refused.stderr
    realm.admit(bravo, realm.invite(1, "--replace", "bravo"))
    after = bravo.overlay_addresses()
    assert (after[0] == before[0], after[1] == before[1]) == (True, False), "the IPv6 address follows from the keys"
    reaches(charlie, "bravo")


def test_thirty_five_days_off_for_all_and_a_founder_that_never_comes_back(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, charlie, delta = (lab.host(name, lan) for name in ("alpha", "bravo", "charlie", "delta"))
    realm = lab.realm(alpha, bravo, charlie)
    word, backup = lab.state / "word", lab.state / "lab.backup"
    word.write_text(WORD)

    # A second issuer, while the founder lives: it lets a node in without it.
    said = alpha.conflux("realm", "grant", "charlie", "--issuer").stdout
    assert "it uses its new credential" in said, said + realm.tails()
    alpha.conflux("realm", "backup", str(backup), "--passphrase-file", str(word))

    addresses = charlie.overlay_addresses()

    # Everything is off for five weeks, then the founder comes first and the others find it.
    for daemon in realm.daemons.values():
        daemon.down()
    pass_days(DAYS, alpha, bravo, charlie)
    realm.restart(alpha)
    assert not warned(alpha, "expired")
    realm.restart(bravo)
    realm.restart(charlie)
    for host in (bravo, charlie):
        is_renewed(realm, host)
    reaches(bravo, "charlie")
    assert charlie.overlay_addresses() == addresses, "an issuer too is renewed by its own issuer, if that is there"

    # The founder's card dies.  The second issuer goes on, and another member becomes the founder.
    realm.daemons["alpha"].kill()
    token = charlie.conflux("realm", "invite", "--quiet").stdout.split()[-1]
    pass_days(DAYS, delta_of(delta))
    realm.admit(delta, token)
    reaches(delta, "bravo")
    realm.daemons["bravo"].down()
    said = bravo.conflux("realm", "restore", str(backup), "--passphrase-file", str(word)).stdout
    assert "this board is the founder of realm lab" in said

    # Five more weeks off: the new founder renews the members of the old one, which it never let in.
    realm.daemons["charlie"].down()
    realm.daemons["delta"].down()
    pass_days(DAYS, bravo, charlie)
    realm.restart(bravo)
    address = bravo.overlay_addresses()
    realm.restart(charlie)
    is_renewed(realm, charlie)
    reaches(charlie, "bravo")
    assert (bravo.overlay_addresses(), charlie.overlay_addresses()) == (address, addresses)
    assert member(bravo, "charlie").state == "member"


def delta_of(delta: Host) -> Host:
    """A board that has a directory: its clock is asked before it joins."""
    delta.conflux("join", "--request", str(delta.state / "unused"), "--name", delta.name)
    return delta


def is_renewed(realm: Realm, host: Host) -> None:
    """Wait until the credential of a host holds."""
    wait_for(lambda: not warned(host, "expired"), f"{host.name} is renewed", within_s=30, logs=realm.logs())


def warned(host: Host, word: str) -> bool:
    """Say whether the status of a host warns of something."""
    return any(warning.startswith(word) for warning in host.status().warnings)
