"""The policy of a realm in force: what no rule allows does not arrive, whenever a node heard of the rules."""

from __future__ import annotations

from datetime import UTC, datetime

from kit.builders import NOW_UNIX, make_credential, node_keys
from kit.policy import HEAD, rule
from kit.revoking import ROOT, flow, last_at
from kit.world import REALM

from conflux.api.scheme import plain
from conflux.api.why import Explainer, Ruled
from conflux.cli.why import paragraph
from conflux.realm.credential import POLICY, RELAY, Chain
from conflux.realm.lists import Denial, DenyList, SignedList
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy
from conflux.realm.policybook import sign_next
from conflux.sim import world
from conflux.sim.flights import Weather
from conflux.sim.world import Host

DENY = HEAD + 'default = "deny"\n'
OPEN = HEAD
TAGS = {"bravo": ("office",), "carol": ("guest",)}


def member(name: str, tags: tuple[str, ...] | None = None, *, serial: int = 1) -> Member:
    given = TAGS.get(name, ()) if tags is None else tags
    credential = make_credential(
        REALM, name, tags=given, capabilities=(RELAY, POLICY), not_before=NOW_UNIX - 86400 + serial
    )
    return Member(node_keys(name), REALM.anchor, Chain(credential, None))


def line(*names: str, seed: int = 1, weather: Weather | None = None, broker: bool = False):
    made = world.World(seed, weather, members=member, now_unix=NOW_UNIX)
    hosts = [made.host(name, **({"broker": True} if broker else {})) for name in names]
    made.run(3.0)
    return made, hosts


def publish(by: Host, text: str) -> SignedPolicy:
    assert by.node is not None
    book = by.node.plane.policies.book
    signed = sign_next(book, by.member, text.encode(), now_unix=by.world.now_unix)
    by.node.publish(signed, now=by.world.now)
    by.drain()
    return signed


def count(host: Host, prefix: bytes = b"ping") -> int:
    return len(host.payloads(prefix))


def test_flow_that_no_rule_allows_any_more_is_cut_within_two_seconds_and_counted():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    flow(made, alpha, bravo)
    made.run(2.0)
    assert last_at(bravo, b"ping") > made.now - 0.2
    at = made.now
    publish(carol, DENY)
    made.run(5.0)
    assert last_at(bravo, b"ping") < at + 2.0
    assert alpha.drops()["policy-sent"] > 0


def test_node_that_takes_no_notice_of_the_rules_gets_nothing_through():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    assert alpha.node is not None
    alpha.node.plane.policies.learnt = None  # it holds to no policy
    flow(made, alpha, bravo)
    made.run(2.0)
    at = made.now
    publish(carol, DENY)
    made.run(5.0)
    assert last_at(bravo, b"ping") < at + 2.0
    assert alpha.drops()["policy-sent"] == 0
    assert bravo.drops()["policy"] > 0


def test_what_a_rule_allows_passes_with_its_answers_and_nothing_else():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(alpha, DENY + rule("alpha", "tag:office", "udp"))
    made.run(3.0)
    flow(made, alpha, bravo, for_s=2.0)
    flow(made, carol, bravo, for_s=2.0)
    flow(made, alpha, carol, for_s=2.0)
    made.run(5.0)
    assert count(bravo) > 30
    assert count(alpha, b"pong") == count(bravo)
    assert count(carol) == 0


def test_rules_that_open_again_let_the_flow_begin_anew():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY)
    made.run(3.0)
    flow(made, alpha, bravo, for_s=20.0)
    made.run(3.0)
    assert count(bravo) == 0
    publish(carol, OPEN)
    made.run(5.0)
    assert last_at(bravo, b"ping") > made.now - 0.5


def test_node_that_was_off_holds_to_the_rules_after_it_is_back():
    made, (bravo, carol) = line("bravo", "carol")
    bravo.power_off()
    publish(carol, DENY)
    made.run(3.0)
    bravo.power_on()
    made.run(5.0)
    assert bravo.node is not None
    assert bravo.node.policing.enforced.number is not None


def test_rules_on_the_disk_hold_from_the_first_packet_of_a_start():
    made, (bravo, carol) = line("bravo", "carol")
    publish(carol, DENY)
    made.run(3.0)
    bravo.power_off()
    bravo.power_on()
    carol.datapath.set_policy(None)  # it holds to nothing
    carol.datapath.meets = None
    flow(made, carol, bravo, for_s=2.0)
    made.run(5.0)
    assert count(bravo) == 0
    assert bravo.drops()["policy"] > 0


def test_board_in_the_place_of_another_gets_what_its_address_and_tags_allow():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY + rule("tag:office", "alpha", "udp"))
    flow(made, bravo, alpha, for_s=1.0)
    made.run(3.0)
    assert alpha.node is not None
    policing = alpha.node.policing
    assert bravo.node_id in policing._members
    content = DenyList((Denial(bravo.node_id, made.now_unix, "broken"),))
    alpha.node.publish(SignedList.make(ROOT.key, REALM.anchor, None, 1, content), now=made.now)
    alpha.drain()
    policing._load()  # as when the other board is met
    assert bravo.node_id not in policing._members


def test_nodes_at_a_broker_hold_to_the_rules_too():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol", broker=True)
    flow(made, alpha, bravo)
    made.run(2.0)
    assert last_at(bravo, b"ping") > made.now - 0.2
    at = made.now
    publish(carol, DENY)
    made.run(5.0)
    assert last_at(bravo, b"ping") < at + 2.0


def test_rule_ends_at_its_moment():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    ends = made.now_unix + 20
    moment = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    publish(carol, DENY + rule("alpha", "bravo", "udp", more=f"until = {moment}"))
    made.at(19.9, lambda: setattr(made, "now_unix", ends))
    flow(made, alpha, bravo, for_s=60.0)
    at = made.now
    made.run(40.0)
    assert at + 15.0 < last_at(bravo, b"ping") < at + 25.0


def test_node_that_loses_a_tag_loses_what_the_tag_allowed():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY + rule("tag:office", "alpha", "udp"))
    flow(made, bravo, alpha, for_s=60.0)
    made.run(3.0)
    assert last_at(alpha, b"ping") > made.now - 0.5
    bravo.member = member("bravo", (), serial=2)
    assert bravo.node is not None
    bravo.node.plane.policies.learnt = None  # it would refuse by itself
    bravo.node.policing.adopt = lambda: None
    bravo.node.adopt(bravo.member, now=made.now)
    bravo.drain()
    at = made.now
    made.run(10.0)
    assert last_at(alpha, b"ping") < at + 5.0
    assert alpha.drops()["policy"] > 0


def test_realm_goes_back_to_the_rules_before_those_of_a_node_that_was_revoked():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY)
    made.run(3.0)
    publish(bravo, OPEN)
    made.run(3.0)
    assert alpha.node is not None
    number = alpha.node.policing.enforced.number
    content = DenyList((Denial(bravo.node_id, NOW_UNIX, "stolen"),))
    alpha.node.publish(SignedList.make(ROOT.key, REALM.anchor, None, 1, content), now=made.now)
    made.run(3.0)
    assert alpha.node.policing.enforced.number is not None
    assert alpha.node.policing.enforced.number < (number or 0)


def test_rules_that_cannot_be_read_leave_those_before_in_force():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY)
    made.run(3.0)
    publish(carol, "version = 99\n")
    made.run(3.0)
    assert alpha.node is not None
    assert alpha.node.policing.enforced.trouble is not None
    flow(made, bravo, alpha, for_s=2.0)
    made.run(3.0)
    assert count(alpha) == 0


def test_realm_without_a_policy_judges_nothing():
    made, (alpha, bravo) = line("alpha", "bravo")
    flow(made, alpha, bravo, for_s=2.0)
    made.run(3.0)
    assert alpha.node is not None
    assert alpha.node.policing.enforced == (None, None)
    assert alpha.datapath.meets is None
    assert count(bravo) > 30


def test_why_names_the_rule_at_either_end():
    made, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    publish(carol, DENY + rule("alpha", "tag:office", "tcp/22", name="shells"))
    flow(made, alpha, bravo, for_s=1.0)
    made.run(3.0)
    assert alpha.node is not None
    card = alpha.node.plane.card(bravo.node_id)
    assert card is not None
    explainer = Explainer(alpha.node, (), made.now)
    ruled = explainer.known("bravo", card, "tcp/22").ruled
    assert ruled is not None
    assert (ruled.there, ruled.here) == (Ruled(True, "shells"), Ruled(False, None))
    assert explainer.known("bravo", card).ruled is None
    said = paragraph(plain(explainer.known("bravo", card, "tcp/22")), NOW_UNIX)
    assert said.startswith(f'Policy {ruled.number}: tcp/22 to bravo may begin, by the rule "shells"; from bravo it may')
