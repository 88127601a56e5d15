"""What a daemon is built of, by its configuration and its credential; nothing of it is started here."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from ipaddress import IPv4Network, IPv6Network
from types import SimpleNamespace

import pytest
from kit.ear import WAIT_S

from conflux.carrier.native.carrier import NativeCarrier
from conflux.carrier.rtc.carrier import RtcCarrier
from conflux.config.settings import parse
from conflux.control.channel import ChannelInputs
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.control.lan.channel import LanChannel
from conflux.control.lan.twins import REST_S
from conflux.daemon import device as device_plan
from conflux.daemon import run
from conflux.daemon.build import Running, build, read_ca
from conflux.daemon.daemon import Daemon
from conflux.daemon.device import interface_warnings, plan, require_a_family
from conflux.daemon.ending import EXIT_DEVICE_LOST, Ending
from conflux.datapath.native.datapath import NativeDatapath
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UserError
from conflux.host import fence, log, netlink, networks, priority, privileges, sandbox
from conflux.host.netlink import DeviceConfig
from conflux.host.tun import Tun
from conflux.ids import BootId, NodeId
from conflux.node.relaying import may_relay
from conflux.realm.card import FEATURES_OF_BUILD, PATIENT
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token, make_invite
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinRequest, OfflineRequest
from conflux.realm.member import Member
from conflux.shell.native import NativeMover
from conflux.shell.shuttle import Shuttle
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.list_files import ListFiles
from conflux.state.revoking import Revoker, load_book


def config(path, more: str = ""):
    return parse(f'[node]\nstate_dir = "{path}"\n{more}')


def built(
    settings,
    look=lambda made: None,
    ending: Ending | None = None,
    ca: str | None = None,
    planned: DeviceConfig | None = None,
    fenced: tuple[networks.Network, ...] = (),
) -> Running:
    """Return a daemon that was made and not started.  look: called with it in its event loop."""
    state = StateDir.open(settings.node.state_dir)
    device = SimpleNamespace(
        name="none", fd=-1, segments_udp=False, read_count=3, written_count=4, trouble=lambda _: None
    )

    async def make() -> Running:
        member = state.member()
        configured = planned or plan(settings, member).config
        made = build(settings, state, member, device, configured, ending or Ending(), fenced=fenced, ca=ca)
        try:
            look(made)
        finally:
            made.mover.stop()
        return made

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("name", "kinds", "counts"),
    [
        ("native", (NativeDatapath, NativeMover, NativeCarrier), (0, 0)),
        ("reference", (ReferenceDatapath, Shuttle, RtcCarrier), (3, 4)),
    ],
)
def test_datapath_mover_and_carrier_are_of_the_configured_kind(member, name, kinds, counts):
    made = built(config(member, f'[datapath]\nname = "{name}"'))
    assert (type(made.node.datapath), type(made.mover), type(made.mover.carrier)) == kinds
    assert made.mover is made.pump.mover
    assert made.mover.device_counts() == counts
    assert made.mover.task_names() == []


def test_a_device_that_the_engine_lost_ends_the_daemon(member):
    ending = Ending()
    made = built(config(member), ending=ending)
    made.node.datapath._device_lost()  # type: ignore[attr-defined]
    assert ending.exit_code == EXIT_DEVICE_LOST


def test_a_node_without_control_channels_is_built_too(member):
    assert built(config(member, "[control.lan]\nenabled = false")).channels == []


BROKER = 'servers = ["tls://broker.example:4222"]'


def test_a_node_with_a_broker_asks_its_neighbours_first(member):
    names = [channel.name for channel in built(config(member, f"[control.nats]\n{BROKER}")).channels]
    assert names == ["lan", "nats"]


@pytest.mark.parametrize("more", [f"enabled = false\n{BROKER}", "", "servers = []"])
def test_a_node_without_a_broker_does_not_import_its_client(member, more):
    settings = f'[node]\nstate_dir = "{member}"\n[control.nats]\n{more}'
    assert imports(settings, "conflux.control.nats.channel", "nats") == []


def test_a_node_with_a_broker_does_not_import_what_only_websockets_need(member, tmp_path):
    (tmp_path / "aiohttp.py").write_text("")
    settings = f'[node]\nstate_dir = "{member}"\n[control.nats]\n{BROKER}'
    assert imports(settings, "nats", "aiohttp", path=str(tmp_path)) == ["nats"]


def imports(settings: str, *names: str, path: str = "") -> list[str]:
    """Return which of these modules a daemon with these settings has imported when it is built."""
    program = f"""
import asyncio, sys
from types import SimpleNamespace
from conflux.config.settings import parse
from conflux.daemon.build import build
from conflux.daemon.ending import Ending
from conflux.daemon.device import plan
from conflux.state.directory import StateDir

async def make():
    settings = parse({settings!r})
    state = StateDir.open(settings.node.state_dir)
    member, tun = state.member(), SimpleNamespace(name="none", fd=-1, segments_udp=False)
    build(settings, state, member, tun, plan(settings, member).config, Ending())

asyncio.run(make())
print(*sorted({set(names)!r} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout.split()


def test_a_ca_that_cannot_be_read_is_named(member, tmp_path):
    settings = config(member, f'[control.nats]\n{BROKER}\nca = "{tmp_path}/none.pem"')
    with pytest.raises(ConfigError, match=r"control\.nats\.ca: cannot read .*none\.pem: No such file"):
        read_ca(settings)


def test_the_ca_is_read_while_files_outside_the_state_directory_may_be_read(member, tmp_path, monkeypatch):
    ca, found = tmp_path / "ca.pem", []
    ca.write_text("the broker's")
    settings = config(member, f'[control.nats]\n{BROKER}\nca = "{ca}"')

    async def see(daemon: Daemon) -> int:
        found.append(daemon._running.channels[1].config.ca)  # type: ignore[attr-defined]
        daemon._running.mover.stop()
        return 0

    device = SimpleNamespace(name="none", fd=-1, segments_udp=False, close=lambda: None)
    monkeypatch.setattr(Tun, "create", lambda name, offloads: device)
    for module, name in (
        (log, "start"),
        (netlink.Child, "configure"),
        (privileges, "drop"),
        (priority, "ask"),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(fence, "build", lambda *_: (None, ()))
    monkeypatch.setattr(sandbox, "enter", lambda *_: ca.unlink())
    monkeypatch.setattr(run, "_make_room", lambda socket: None)
    monkeypatch.setattr(Daemon, "run", see)
    assert run.run(settings, child=netlink.Child()) == 0
    assert found == ["the broker's"]


def test_a_ca_that_is_none_is_named_when_the_channel_starts(member, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = config(member, f'[control.nats]\n{BROKER}\nca = "{tmp_path}/ca.pem"')
    _, nats = built(settings, ca=read_ca(settings)).channels

    async def start() -> None:
        await nats.start(ChannelInputs(deliver=print))

    with pytest.raises(ConfigError, match=r"control\.nats\.ca: .* holds no certificate"):
        asyncio.run(start())


def test_a_renewed_credential_is_saved_and_used_by_every_part(member):
    adopted = []

    def renew(made: Running) -> None:
        issuer = issuer_of(made.state, made.node.member)
        made.renewal.adopt(issuer.renew(made.node.member.chain, now_unix=1_800_000_000))
        adopted.append(made.renewal.member)

    made = built(config(member), renew)
    assert made.node.member is adopted[0]
    (lan,) = made.channels
    assert isinstance(lan, LanChannel)
    assert lan._ourselves.member is adopted[0]
    assert StateDir.open(member).member().chain == adopted[0].chain


def test_a_renewed_credential_that_cannot_be_saved_is_used_all_the_same(member, monkeypatch, caplog):
    def full(self, member: Member) -> None:
        raise StateError("no space left on device")

    def renew(made: Running) -> None:
        issuer = issuer_of(made.state, made.node.member)
        chain = issuer.renew(made.node.member.chain, now_unix=1_800_000_000)
        monkeypatch.setattr(StateDir, "save_member", full)
        made.renewal.adopt(chain)
        assert made.node.member.chain == chain

    built(config(member), renew)
    assert "the renewed credential cannot be kept: no space left on device" in caplog.text


def test_a_message_that_breaks_a_rule_is_dropped_and_counted(member):
    def receive(made: Running) -> None:
        made.pump._on_message(Message(made.node.member.node_id, Kind.RENEWED, b"", 1, 0, BootId(bytes(8))))
        chain = made.node.member.chain.encode()
        stranger = Message(NodeId(bytes(16)), Kind.RENEWED, chain, 1, 0, BootId(bytes(8)))
        made.pump._on_message(stranger)

    assert built(config(member), receive).pump.drops == {"malformed": 1, "wrong-issuer": 1}


def test_a_renewal_that_cannot_be_recorded_is_logged_and_the_daemon_goes_on(member, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise StateError("no space left on device")

    def receive(made: Running) -> None:
        monkeypatch.setattr(Issuer, "renew", full)
        chain = made.node.member.chain.encode()
        made.pump._on_message(Message(made.node.member.node_id, Kind.RENEW, chain, 1, 0, BootId(bytes(8))))

    caplog.set_level(logging.ERROR)
    assert built(config(member), receive).pump.drops == {}
    assert "renewal: no space left on device" in caplog.text


def test_an_issuer_that_cannot_record_a_node_tells_it_to_come_again(member, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise StateError("no space left on device")

    def join(made: Running) -> None:
        monkeypatch.setattr(Issuer, "join", full)
        (lan,) = made.channels
        assert isinstance(lan, LanChannel)
        token = Token(bytes(32), made.node.member.node_id, bytes(8), bytes(16), 2**40, 1, ())
        request = JoinRequest.build(token, made.node.member.keys, "b", binding=bytes(32), nonce=bytes(32))
        with pytest.raises(RemoteProtocolError, match="busy"):
            lan._admission._issue(request, bytes(32))

    built(config(member), join)
    assert "a node cannot be let in: no space left on device" in caplog.text


def test_a_revoked_node_is_not_let_in_again_with_a_token_that_is_left(member):
    state = StateDir.open(member)
    keys = NodeKeys.generate()
    book = load_book(ListFiles(state), state.member(), lambda: 1_800_000_000)
    Revoker(state, state.member()).revoke(book, keys.node_id, reason="stolen", now_unix=1_800_000_000)

    def join(made: Running) -> None:
        (lan,) = made.channels
        assert isinstance(lan, LanChannel)
        token = Token(bytes(32), made.node.member.node_id, bytes(8), bytes(16), 2**40, 1, ())
        request = JoinRequest.build(token, keys, "b", binding=bytes(32), nonce=bytes(32))
        with pytest.raises(RemoteProtocolError, match="revoked"):
            lan._admission._issue(request, bytes(32))

    assert built(config(member), join).node.plane.denies(keys.node_id)


def other_member(member, tmp_path) -> tuple[StateDir, StateDir, NodeId]:
    """Return the issuer's state directory, that of a node that it let in, and the node's id."""
    home, other = StateDir.open(member), StateDir.open(tmp_path / "other", create=True)
    keys, gate = other.make_node_keys(), home.member()
    request = OfflineRequest.build(keys, "other", nonce=os.urandom(32))
    other.save_member(Member(keys, gate.anchor, issuer_of(home, gate).admit(request, now_unix=1_800_000_000).chain))
    return home, other, keys.node_id


def test_a_revoked_node_says_so_at_start_and_in_its_status(member, tmp_path, caplog):
    home, other, node_id = other_member(member, tmp_path)
    book = load_book(ListFiles(home), home.member(), lambda: 1_800_000_000)
    revoker = Revoker(home, home.member())
    ListFiles(other).save(revoker.revoke(book, node_id, reason="lost", now_unix=1_800_000_000).signed)
    made = built(config(other.path))
    assert made.node.plane.is_revoked
    assert "revoked: this node was revoked on" in caplog.text
    assert "(lost)" in caplog.text
    assert other.node_keys().node_id == node_id  # they are its own


def test_a_board_that_another_has_replaced_is_denied_when_the_other_joins(member, tmp_path):
    home, _, node_id = other_member(member, tmp_path)
    gate = home.member()
    invite, token = make_invite(
        gate.anchor, gate.node_id, now_unix=int(time.time()), entropy=os.urandom, replaces=node_id
    )
    issuer_of(home, gate).invite(invite, now_unix=int(time.time()))
    sent = []

    def join(made: Running) -> None:
        (lan,) = made.channels
        assert isinstance(lan, LanChannel)
        request = JoinRequest.build(token, NodeKeys.generate(), "other", binding=bytes(32), nonce=bytes(32))
        assert not made.node.plane.denies(node_id)
        lan._admission._issue(request, bytes(32))
        assert made.node.plane.denies(node_id)
        sent.extend(each.envelope for each in iter(made.node.plane.next_transmit, None))

    built(config(member), join)
    assert any(envelope.to is None for envelope in sent)  # every node in reach hears of it
    assert load_book(ListFiles(home), gate, lambda: int(time.time())).denies(node_id)


def relays(made: Running) -> tuple[bool, bool]:
    """Say whether a daemon offers to pass routes on, and whether it would."""
    return may_relay(made.node.plane.own_card), made.node.routes.relaying


def test_a_node_relays_unless_it_is_switched_off(member):
    assert relays(built(config(member))) == (True, True)
    assert relays(built(config(member, "[relay]\nenabled = false"))) == (False, False)


def test_a_node_whose_credential_does_not_allow_it_does_not_relay(member, tmp_path):
    home, plain = StateDir.open(member), StateDir.open(tmp_path / "plain", create=True)
    keys, gate = plain.make_node_keys(), home.member()
    request = OfflineRequest.build(keys, "plain", nonce=os.urandom(32))
    answer = issuer_of(home, gate).admit(request, now_unix=1_800_000_000)
    plain.save_member(Member(keys, gate.anchor, answer.chain))
    assert relays(built(config(plain.path))) == (False, False)


def test_the_bytes_a_neighbour_may_have_passed_on_are_bounded_as_configured(member):
    assert built(config(member)).node.datapath._config.relay_bytes_per_s is None  # type: ignore[attr-defined]
    made = built(config(member, "[relay]\nbytes_per_s = 125000"))
    assert made.node.datapath._config.relay_bytes_per_s == 125000  # type: ignore[attr-defined]


def test_the_queue_of_one_destination_is_as_configured_and_that_of_all_is_larger(member):
    for queue_bytes, queues_bytes in ((1 << 20, 64 << 20), (1 << 26, 128 << 20)):
        made = built(config(member, f"[stream]\nqueue_bytes = {queue_bytes}"))
        limits = made.node.datapath._config  # type: ignore[attr-defined]
        assert (limits.queue_bytes_max, limits.queues_bytes_max) == (queue_bytes, queues_bytes)


@pytest.mark.parametrize("ipv4", [True, False])
def test_the_device_gets_the_members_addresses_and_routes_of_the_same_families(member, ipv4):
    gate = StateDir.open(member).member()
    device = plan(config(member, f"[tun]\nmtu = 1400\nipv4 = {str(ipv4).lower()}"), gate).config
    assert (device.device, device.mtu) == ("conflux0", 1400)
    versions = [6, 4] if ipv4 else [6]
    assert sorted(address.version for address in device.addresses) == sorted(versions)
    assert [network.version for network in device.networks] == versions
    assert set(device.addresses) <= set(gate.addresses)


def test_a_realm_prefix_that_covers_a_network_of_the_host_is_left_out_with_a_warning(member, monkeypatch):
    gate = StateDir.open(member).member()
    prefix = gate.anchor.ipv4_prefix
    lan = networks.Taken(next(prefix.subnets(new_prefix=24)), "eth0")
    monkeypatch.setattr(networks, "taken", lambda *, but: [lan])
    made = plan(config(member), gate)
    assert [address.version for address in made.config.addresses] == [6]
    assert made.config.networks == made.config.closed == made.fenced == (gate.anchor.ipv6_prefix,)
    assert [f"{prefix} covers {lan}" in warning for warning in made.warnings] == [True]
    assert plan(config(member, "[tun]\nipv4 = false"), gate).warnings == ()


def test_without_ipv6_the_device_has_its_ipv4_address_alone_and_the_card_says_so(member):
    settings = config(member, '[datapath]\nname = "reference"')
    gate = StateDir.open(member).member()
    made = plan(settings, gate, has_ipv6=False)
    assert [address.version for address in made.config.addresses] == [4]
    assert made.config.networks == (gate.anchor.ipv4_prefix,)
    assert set(made.fenced) == set(made.config.closed) == {gate.anchor.ipv6_prefix, gate.anchor.ipv4_prefix}
    assert [f"reached at {gate.chain.credential.ipv4} alone" in words for words in made.warnings] == [True]
    said = (PATIENT, *FEATURES_OF_BUILD)
    assert built(settings, planned=made.config).node.plane.own_card.features == ("relay", "no-ipv6", *said)
    assert built(settings).node.plane.own_card.features == ("relay", *said)


def test_a_daemon_whose_newer_twin_is_gone_ends_and_starts_as_a_newer_boot(member):
    ending = Ending()
    made = built(config(member, '[datapath]\nname = "reference"'), ending=ending)
    newer = BootId((int(time.time()) + 1000).to_bytes(5) + bytes(3))
    assert made.twins._again(newer)
    assert (ending.asked, ending.exit_code) == (True, EXIT_DEVICE_LOST)
    assert StateDir.open(member).next_boot(now_unix=0, entropy=os.urandom) > newer


def test_a_daemon_that_a_twin_made_start_again_goes_on_for_an_hour_whatever_that_does(member):
    settings = config(member, '[datapath]\nname = "reference"')
    made = built(settings)
    assert made.twins._rests_until <= time.monotonic()
    assert made.twins._again(BootId(int(time.time()).to_bytes(5) + b"\xff" * 3))
    assert built(settings).twins._rests_until > time.monotonic() + REST_S - 60
    assert built(settings).twins._rests_until <= time.monotonic(), "it is the start of a person"


def test_a_twin_that_says_the_last_boot_number_ends_no_daemon_and_hinders_no_start(member):
    ending = Ending()
    settings = config(member, '[datapath]\nname = "reference"')
    made = built(settings, ending=ending)
    assert not made.twins._again(BootId(b"\xff" * 8))
    assert not ending.asked
    built(settings)


def test_an_interface_that_is_configured_and_not_here_is_in_the_warnings(member):
    settings = config(member, '[datapath]\nname = "reference"\n[control.lan]\ninterfaces = ["wlan9"]')
    (words,) = interface_warnings(settings)
    assert words.startswith("no-interface: control.lan.interfaces: no interface 'wlan9' here (")
    assert interface_warnings(config(member, "[control.lan]\nenabled = false\ninterfaces = ['wlan9']")) == ()


def test_a_device_that_can_have_no_address_is_refused(member):
    gate = StateDir.open(member).member()
    without = config(member, "[tun]\nipv4 = false")
    for refused in (lambda: require_a_family(without, has_ipv6=False), lambda: plan(without, gate, has_ipv6=False)):
        with pytest.raises(UserError, match="conflux0 can have no address: IPv6 is switched off"):
            refused()
    require_a_family(without, has_ipv6=True)
    require_a_family(config(member), has_ipv6=False)


def test_a_network_in_the_realms_ipv6_prefix_takes_nothing_from_the_device(member, monkeypatch):
    """One router advertisement makes it: a start that refused would let anyone on the LAN keep the daemon away."""
    gate = StateDir.open(member).member()
    monkeypatch.setattr(networks, "taken", lambda *, but: [])
    without = plan(config(member), gate)
    lan = networks.Taken(next(gate.anchor.ipv6_prefix.subnets(new_prefix=64)), "eth0")
    monkeypatch.setattr(networks, "taken", lambda *, but: [lan])
    made = plan(config(member), gate)
    assert made == without
    (words,) = device_plan.collisions(made.fenced, "conflux0")
    assert words.startswith(f"ipv6-collides: {lan} lies in the realm's prefix {gate.anchor.ipv6_prefix}")


def test_a_lease_inside_the_realms_ipv4_prefix_has_the_daemon_start_anew_once(member, monkeypatch):
    """The fence would cut this host off from that LAN until somebody comes; the next start leaves IPv4 out."""
    gate = StateDir.open(member).member()
    lan = networks.Taken(next(gate.anchor.ipv4_prefix.subnets(new_prefix=24)), "eth0")
    monkeypatch.setattr(networks, "taken", lambda *, but: [])
    before = plan(config(member), gate)
    assert device_plan.cut_off(before.fenced, "conflux0") is None
    troubles: list[str | None] = []
    built(config(member), lambda made: troubles.append(made.health._look()), fenced=before.fenced)
    monkeypatch.setattr(networks, "taken", lambda *, but: [lan])
    said = device_plan.cut_off(before.fenced, "conflux0")
    assert said == f"{lan} lies in the realm's prefix {gate.anchor.ipv4_prefix}"
    built(config(member), lambda made: troubles.append(made.health._look()), fenced=before.fenced)
    assert troubles == [None, said]
    after = plan(config(member), gate)
    assert "ipv4-collides" in "".join(after.warnings)
    assert device_plan.cut_off(after.fenced, "conflux0") is None, "it would start anew again and again"


async def test_networks_that_come_to_lie_in_the_realms_ipv6_prefix_are_told_once_and_end_nothing(monkeypatch, caplog):
    lan = networks.Taken(IPv4Network("10.7.1.0/24"), "eth0")
    advertised = networks.Taken(IPv6Network("fd00:7:0:9::/64"), "eth0")
    found = [[], [lan], [lan, advertised], [lan], [lan, advertised]]
    seen = asyncio.Event()

    def taken(*, but: str) -> list[networks.Taken]:
        if len(found) == 1:
            seen.set()
        return found.pop(0) if len(found) > 1 else found[0]

    monkeypatch.setattr(networks, "taken", taken)
    monkeypatch.setattr(device_plan, "LOOK_S", 0.0)
    watching = asyncio.create_task(
        device_plan.watch((IPv6Network("fd00:7::/48"), IPv4Network("10.7.0.0/16")), "conflux0")
    )
    await asyncio.wait_for(seen.wait(), WAIT_S)
    assert not watching.done()
    watching.cancel()
    said = [message.partition(" lies in ")[0] for message in caplog.messages]
    assert said == [f"ipv6-collides: {advertised}", f"ipv6-collides: {advertised}"]


@pytest.mark.parametrize("ipv4", [True, False])
def test_what_is_ours_is_what_the_device_has(member, ipv4):
    """Else a packet for the missing address would be written to the device, and passed on by a host that forwards."""
    settings = config(member, f'[datapath]\nname = "reference"\n[tun]\nipv4 = {str(ipv4).lower()}')
    made = built(settings)
    wanted = plan(settings, made.node.member).config.addresses
    assert len(wanted) == 1 + ipv4
    assert made.node.datapath._own == {address.packed for address in wanted}  # type: ignore[attr-defined]
    assert made.node.status(now=0.0).addresses == wanted
