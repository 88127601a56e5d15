"""What a server is given: a compose file of the specification, a hardened unit, and a configuration for every shape."""

from __future__ import annotations

import json
import re

import pytest
from kit.schema import faults
from kit.tree import TREE

from conflux.broker import server_files
from conflux.broker.layout import Layout, make_layout
from conflux.broker.server_files import PLACE, Accounts

SCHEMA = json.loads((TREE / "tests" / "vectors" / "compose-spec.json").read_text())
ACCOUNTS = Accounts("eyOPERATOR", "ASYSTEM", "eySYSTEM", "AREALM", "eyREALM")

ONE = make_layout({"main": ("nats.example.org",)}, (), 4222)
WHOLE = make_layout({"eu": ("a.example.org", "b.example.org"), "us": ("2001:db8::1",)}, ("gate.lan",), 4222)


def compose(layout: Layout, host: str, *, is_leaf: bool = False) -> dict:
    return json.loads(server_files.compose(layout, host=host, is_leaf=is_leaf))


@pytest.mark.parametrize(
    ("layout", "host", "is_leaf"),
    [(ONE, "nats.example.org", False), (WHOLE, "b.example.org", False), (WHOLE, "gate.lan", True)],
)
def test_a_compose_file_is_what_the_specification_says(layout, host, is_leaf):
    whole = compose(layout, host, is_leaf=is_leaf)
    assert list(faults(whole, SCHEMA, SCHEMA)) == []
    [service] = whole["services"].values()
    assert set(service["secrets"]) == set(whole["secrets"]) == set(server_files.secrets(is_leaf=is_leaf).values())
    assert service["environment"]["SERVER_KEY"] == "/run/secrets/server.key"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ports": [{"target": "x y", "nonsense": 1}]}, "ports"),
        ({"image": 7}, "image"),
        ({"imagine": "x"}, "imagine"),
        ({"read_only": ["a"]}, "read_only"),
        ({"secrets": [{"sauce": "a"}]}, "secrets"),
        ({"cap_drop": ["ALL", "ALL"]}, "twice"),
        ({"environment": ["A=1", 3]}, "environment"),
    ],
)
def test_the_schema_refuses_what_is_no_compose_file(change, told):
    whole = compose(ONE, "nats.example.org")
    whole["services"]["conflux-nats"] |= change
    assert any(told in fault for fault in faults(whole, SCHEMA, SCHEMA))


def test_a_container_listens_on_the_ports_of_its_configuration_and_no_other():
    for layout, host in ((ONE, "nats.example.org"), (WHOLE, "a.example.org"), (WHOLE, "2001:db8::1")):
        listens = re.findall(r'listen: "0\.0\.0\.0:(\d+)"', server_files.server_config(layout, host, ACCOUNTS))
        [service] = compose(layout, host)["services"].values()
        assert service["ports"] == [f"{port}:{port}" for port in listens]
    listens = re.findall(r'listen: "0\.0\.0\.0:(\d+)"', server_files.leaf_config(WHOLE, "gate.lan", ACCOUNTS))
    [service] = compose(WHOLE, "gate.lan", is_leaf=True)["services"].values()
    assert service["ports"] == [f"{port}:{port}" for port in listens] == ["4222:4222"]


@pytest.mark.parametrize("is_leaf", [False, True])
def test_the_unit_hands_over_every_secret_that_the_configuration_asks_for(is_leaf):
    unit = server_files.unit("home", is_leaf=is_leaf)
    config = (
        server_files.leaf_config(WHOLE, "gate.lan", ACCOUNTS)
        if is_leaf
        else server_files.server_config(WHOLE, "a.example.org", ACCOUNTS)
    )
    asked = set(re.findall(r"\$(\w+)", config))
    assert asked == {"STATE_DIRECTORY", *server_files.secrets(is_leaf=is_leaf)}
    for variable, file in server_files.secrets(is_leaf=is_leaf).items():
        assert f"LoadCredential={file}:{PLACE}/{file}\n" in unit
        assert f"Environment={variable}=%d/{file}\n" in unit


def test_the_unit_gives_the_server_nothing_that_it_does_not_need():
    unit = server_files.unit("home", is_leaf=False)
    for line in (
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter=@system-service",
        "StateDirectoryMode=0700",
    ):
        assert f"\n{line}\n" in unit


def test_one_server_has_neither_cluster_nor_gateway_nor_port_for_sites():
    config = server_files.server_config(ONE, "nats.example.org", ACCOUNTS)
    assert not re.search(r"^(cluster|gateway|leafnodes)", config, re.MULTILINE)


def test_servers_ask_one_another_for_certificates_and_tell_no_client_of_one_another():
    config = server_files.server_config(WHOLE, "a.example.org", ACCOUNTS)
    parts = dict(re.findall(r"^(\w+) \{(.*?)^\}", config, re.MULTILINE | re.DOTALL))
    assert "verify: true" in parts["cluster"]
    assert "verify: true" in parts["gateway"]
    assert "verify" not in parts["leafnodes"]  # a site proves itself by its JWT
    assert "no_advertise: true" in parts["cluster"]
    assert "no_advertise: true" in parts["leafnodes"]
    assert "reject_unknown_cluster: true" in parts["gateway"]
    assert 'routes: ["nats-route://b.example.org:6222"]' in parts["cluster"]
    assert '"tls://[2001:db8::1]:7222"' in parts["gateway"]


def test_every_listener_and_every_link_of_a_site_has_tls_1_3_alone():
    for config, count in (
        (server_files.server_config(WHOLE, "a.example.org", ACCOUNTS), 4),
        (server_files.leaf_config(WHOLE, "gate.lan", ACCOUNTS), 3),
    ):
        suites = re.findall(r"cipher_suites: \[(.*?)\]", config)
        assert len(suites) == len(re.findall(r"\btls \{", config)) == count
        assert all(suite.startswith('"TLS_') for line in suites for suite in line.split(", "))


def test_a_site_links_the_system_account_too():
    # Without it, its server never learns of a revocation.
    config = server_files.leaf_config(WHOLE, "gate.lan", ACCOUNTS)
    assert "account: AREALM\n      credentials: $REALM_CREDS" in config
    assert "account: ASYSTEM\n      credentials: $SYSTEM_CREDS" in config


def test_servers_compare_accounts_every_second():
    assert 'interval: "1s"' in server_files.server_config(ONE, "nats.example.org", ACCOUNTS)


def test_monitoring_and_websockets_stay_off():
    config = server_files.server_config(WHOLE, "a.example.org", ACCOUNTS)
    assert not re.search(r"http|websocket|mqtt|no_auth_user|jetstream", config)
