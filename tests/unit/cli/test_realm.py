"""`conflux realm` and `conflux join`, run as a person runs them, and the files they keep."""

import os
import stat
import time
from ipaddress import IPv4Network

import pytest
from kit.desk import root_in

from conflux.cli import parser
from conflux.cli.realm import root_words
from conflux.host.networks import Taken
from conflux.realm.credential import BRIDGE
from conflux.realm.invite import Token
from conflux.realm.join import OfflineRequest
from conflux.realm.member import Member
from conflux.state.directory import StateDir
from conflux.state.founding import found_realm, issuer_of
from conflux.state.issuer_files import IssuerFiles


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def conflux(capsys, *arguments: object) -> tuple[int, str, str]:
    code = parser.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_signed(state) -> tuple[str, str]:
    """The option by which a person says that the root is the issuer's."""
    return ("--root", root_of(state))


def root_of(state) -> str:
    """The root of a board's realm, as `conflux realm sign` prints it."""
    return root_words(StateDir.open(state).member().anchor)


def test_create_makes_a_member_that_issues(capsys, state):
    code, out, err = conflux(capsys, "realm", "create", "home", "--node", "gate", "--state-dir", state)
    assert (code, err) == (0, "")
    assert out.startswith("realm home created\n")
    assert max(len(line) for line in out.splitlines() if str(state) not in line) <= 80
    member = StateDir.open(state).member()
    assert (member.name, member.anchor.name) == ("gate", "home")
    assert all(str(address) in out for address in member.addresses)
    assert stat.S_IMODE((state / "root.key").stat().st_mode) == 0o600


def test_a_second_realm_in_one_directory_is_refused(capsys, state):
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    before = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file() and path.name != "lock"}
    code, out, err = conflux(capsys, "realm", "create", "work", "--state-dir", state)
    assert (code, out) == (1, "")
    assert "belongs to realm home already" in err
    assert before == {
        path.name: path.read_bytes() for path in state.iterdir() if path.is_file() and path.name != "lock"
    }


def test_a_realm_whose_prefix_overlaps_a_network_of_the_host_is_refused_before_anything_is_kept(
    capsys, state, host_networks
):
    host_networks.append(Taken(IPv4Network("10.7.1.0/24"), "eth0"))
    code, out, err = conflux(capsys, "realm", "create", "home", "--ipv4", "10.7.0.0/16", "--state-dir", state)
    assert (code, out) == (1, "")
    assert "prefix 10.7.0.0/16 overlaps 10.7.1.0/24 on eth0: name another private one with --ipv4" in err
    assert {path.name for path in state.iterdir()} == {"lock"}
    assert conflux(capsys, "realm", "create", "home", "--ipv4", "10.8.0.0/16", "--state-dir", state)[0] == 0


def test_a_board_that_joins_a_realm_which_overlaps_its_lan_is_warned(capsys, tmp_path, host_networks):
    gate, leaf, request = tmp_path / "gate", tmp_path / "leaf", tmp_path / "leaf.request"
    conflux(capsys, "realm", "create", "home", "--ipv4", "10.7.0.0/16", "--state-dir", gate)
    conflux(capsys, "join", "--request", request, "--force", "--name", "leaf", "--state-dir", leaf)
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", gate)
    host_networks.append(Taken(IPv4Network("10.7.1.0/24"), "eth0"))
    code, out, err = conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(gate), "--state-dir", leaf)
    assert (code, out.splitlines()[0]) == (0, "joined realm home")
    assert "warning: ipv4-collides: the realm's IPv4 prefix 10.7.0.0/16 covers 10.7.1.0/24 on eth0" in err


def test_an_invitation_for_scripts_is_the_token_alone(capsys, state):
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    code, out, _ = conflux(
        capsys, "realm", "invite", "--quiet", "--count", 3, "--hint", "192.0.2.7:7464", "--state-dir", state
    )
    assert code == 0
    token = Token.parse(out)
    assert (token.count, token.hints) == (3, ("192.0.2.7:7464",))


@pytest.mark.parametrize(
    ("options", "capabilities"),
    [
        ([], ("relay",)),
        (["--no-relay"], ()),
        (["--capability", BRIDGE, "--capability", BRIDGE], ("relay", BRIDGE)),
        (["--no-relay", "--capability", BRIDGE], (BRIDGE,)),
    ],
)
def test_who_is_invited_may_relay_unless_it_is_said_otherwise(capsys, state, options, capabilities):
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    assert conflux(capsys, "realm", "invite", "--quiet", *options, "--state-dir", state)[0] == 0
    (invite,) = IssuerFiles(StateDir.open(state)).invites()
    assert invite.capabilities == capabilities


@pytest.mark.parametrize(("options", "capabilities"), [([], ("relay",)), (["--no-relay"], ())])
def test_who_is_signed_for_may_relay_unless_it_is_said_otherwise(capsys, state, tmp_path, options, capabilities):
    far, request = tmp_path / "far", tmp_path / "r"
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", far)
    assert conflux(capsys, "realm", "sign", "--force", request, *options, "--state-dir", state)[0] == 0
    assert conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(state), "--state-dir", far)[0] == 0
    assert StateDir.open(far).member().chain.credential.capabilities == capabilities


def test_a_code_is_drawn_on_a_terminal_alone_and_fits_it(capsys, state, monkeypatch):
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    _, plain, _ = conflux(capsys, "realm", "invite", "--state-dir", state)
    assert (plain.count("█"), "\n  conflux join cfx1" in plain) == (0, True)
    refused, out, err = conflux(capsys, "realm", "invite", "--qr", "--state-dir", state)
    assert (refused, out, "--qr draws on a terminal" in err) == (2, "", True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, out, _ = conflux(capsys, "realm", "invite", "--qr", "--state-dir", state)
    code, _, words = out.partition("\nGood for 1 node until ")
    assert code.count("█") > 100
    assert max(map(len, code.splitlines())) <= 80
    assert "\n  conflux join cfx1" in words


@pytest.mark.parametrize("command", [["invite"], ["sign", "x"]])
def test_who_does_not_issue_is_told_so(capsys, state, command):
    code, _, err = conflux(capsys, "realm", *command, "--state-dir", state)
    assert code == 1
    assert "no such state directory" in err
    StateDir.open(state, create=True)
    code, _, err = conflux(capsys, "realm", *command, "--state-dir", state)
    assert code == 1
    assert "in no realm yet" in err


def test_a_node_joins_by_files_carried_back_and_forth(capsys, state, tmp_path):
    far, request = tmp_path / "far", tmp_path / "kitchen.request"
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    code, out, _ = conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", far)
    assert code == 0
    assert "conflux realm sign kitchen.request" in out
    code, signed, _ = conflux(capsys, "realm", "sign", "--force", request, "--tag", "light", "--state-dir", state)
    assert code == 0
    code, joined, err = conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(state), "--state-dir", far)
    assert (code, err) == (0, "")
    assert root_in(signed) == root_of(state)
    assert root_of(state) in joined, "both people read the same words"
    member = StateDir.open(far).member()
    assert (member.name, member.chain.credential.tags) == ("kitchen", ("light",))


def test_a_request_that_cannot_be_written_leaves_the_earlier_one_answerable(capsys, state, tmp_path):
    far, request = tmp_path / "far", tmp_path / "r"
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", far)
    code, _, err = conflux(capsys, "join", "--request", tmp_path / "none" / "r", "--state-dir", far)
    assert (code, "cannot write" in err) == (1, True)
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    assert conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(state), "--state-dir", far)[0] == 0


def test_a_member_joins_again_when_its_credential_has_ended_and_not_before(capsys, state, tmp_path):
    far, request = tmp_path / "far", tmp_path / "r"
    issuing, long_ago = StateDir.open(state, create=True), int(time.time()) - 40 * 86400
    found_realm(issuing, "home", "gate", now_unix=long_ago, entropy=os.urandom)
    conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", far)
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(state), "--state-dir", far)
    code, _, err = conflux(capsys, "join", "--request", request, "--force", "--state-dir", far)
    assert (code, "belongs to realm home already" in err) == (1, True)

    member = StateDir.open(far).member()
    asked = OfflineRequest.decode_untrusted(request.read_bytes())
    ended = issuer_of(issuing, issuing.member()).admit(asked, now_unix=long_ago).chain
    StateDir.open(far).save_member(Member(member.keys, member.anchor, ended))
    conflux(capsys, "realm", "create", "away", "--state-dir", tmp_path / "away")
    _, token, _ = conflux(capsys, "realm", "invite", "--quiet", "--state-dir", tmp_path / "away")
    code, _, err = conflux(capsys, "join", token.strip(), "--state-dir", far)
    assert (code, "belongs to realm home already" in err) == (1, True), "another realm wants another directory"

    assert conflux(capsys, "join", "--request", request, "--force", "--state-dir", far)[0] == 0
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    code, _, _ = conflux(capsys, "join", "--answer", f"{request}.answer", *as_signed(state), "--state-dir", far)
    again = StateDir.open(far).member()
    assert (code, again.chain.not_after > time.time()) == (0, True)
    assert (again.name, again.node_id, again.addresses) == ("kitchen", member.node_id, member.addresses)


def test_an_answer_without_its_request_is_refused(capsys, state, tmp_path):
    answer = tmp_path / "answer"
    answer.write_bytes(b"x")
    StateDir.open(state, create=True)
    code, _, err = conflux(capsys, "join", "--answer", answer, "--state-dir", state)
    assert code == 1
    assert "no request was made here" in err


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" + data, lambda data: b""])
def test_a_damaged_request_or_answer_is_refused_by_name(capsys, state, tmp_path, damage):
    far, request = tmp_path / "far", tmp_path / "r"
    conflux(capsys, "realm", "create", "home", "--state-dir", state)
    conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", far)
    whole = request.read_bytes()
    request.write_bytes(damage(whole))
    code, _, err = conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    assert (code, "not a join request, or a damaged one" in err, err.count("\n")) == (1, True, 1)
    request.write_bytes(whole)
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    answer = tmp_path / "r.answer"
    answer.write_bytes(damage(answer.read_bytes()))
    code, _, err = conflux(capsys, "join", "--answer", answer, *as_signed(state), "--state-dir", far)
    assert (code, err.count("\n")) == (1, 1)
    assert StateDir.open(far).member() is None


def test_a_name_that_is_taken_is_refused(capsys, state, tmp_path):
    request = tmp_path / "r"
    conflux(capsys, "realm", "create", "home", "--node", "gate", "--state-dir", state)
    conflux(capsys, "join", "--request", request, "--force", "--name", "gate", "--state-dir", tmp_path / "far")
    code, _, err = conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    assert (code, err.count("\n")) == (1, 1)
    assert "another node of the realm has this name" in err
    assert "realm invite --replace NAME" in err


def test_a_board_comes_back_by_file_under_the_name_of_one_that_died(capsys, state, tmp_path):
    conflux(capsys, "realm", "create", "home", "--node", "gate", "--state-dir", state)
    for board in ("old", "new"):
        request = tmp_path / board
        conflux(
            capsys,
            "join",
            "--request",
            request,
            "--force",
            "--name",
            "kitchen",
            "--state-dir",
            tmp_path / f"{board}-state",
        )
        more = ["--replace", "kitchen"] if board == "new" else []
        assert conflux(capsys, "realm", "sign", "--force", request, *more, "--state-dir", state)[0] == 0
    ends = {entry.name: entry.end for entry in IssuerFiles(StateDir.open(state)).issued() if not entry.is_member}
    assert ends == {"kitchen": "replaced"}
    _, out, _ = conflux(capsys, "realm", "invite", "--replace", "kitchen", "--state-dir", state)
    assert out.endswith(" --name kitchen\n")


@pytest.mark.parametrize(
    ("name", "code", "word"), [("nobody", 1, "no member"), ("gate", 1, "this node itself"), ("A b", 2, "node name")]
)
def test_who_is_to_be_replaced_must_be_another_member(capsys, state, name, code, word):
    conflux(capsys, "realm", "create", "home", "--node", "gate", "--state-dir", state)
    got, _, err = conflux(capsys, "realm", "invite", "--replace", name, "--state-dir", state)
    assert (got, word in err) == (code, True)
    assert IssuerFiles(StateDir.open(state)).invites() == []


def test_one_invitation_replaces_one_node(capsys, state):
    conflux(capsys, "realm", "create", "home", "--node", "gate", "--state-dir", state)
    request = state.parent / "r"
    conflux(capsys, "join", "--request", request, "--force", "--name", "kitchen", "--state-dir", state.parent / "far")
    conflux(capsys, "realm", "sign", "--force", request, "--state-dir", state)
    code, _, err = conflux(capsys, "realm", "invite", "--replace", "kitchen", "--count", 2, "--state-dir", state)
    assert (code, "the place of one node" in err) == (1, True)


@pytest.mark.parametrize("token", ["hello", "cfx1AAAA", "cfx1" + "A" * 2000])
def test_a_text_that_is_no_invitation_is_refused_before_anything_is_made(capsys, state, token):
    code, _, err = conflux(capsys, "join", token, "--state-dir", state)
    assert (code, err.count("\n")) == (1, 1)
    assert not state.exists()
