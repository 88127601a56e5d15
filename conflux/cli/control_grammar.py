"""The grammar of `conflux control ...`."""

from __future__ import annotations

import argparse

from conflux.cli.grammar import (
    Commands,
    Help,
    Parser,
    adder,
    count,
    host,
    host_and_port,
    json_option,
    path,
    quoted,
)
from conflux.ids import BROKER_PORT


def add_control(commands: Commands) -> None:
    """Add `conflux control` and its commands."""
    words = "run a NATS server for the realm, and find out why it does not let a node in"
    control = commands.add_parser("control", help=words, description=f"{words.capitalize()}.", formatter_class=Help)
    add = adder(control.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser))
    init = add(
        "init",
        "control:init",
        "write what the servers of a broker need, or write it anew",
        "conflux control init broker --servers nats.example.org\n"
        "  conflux control init broker --servers a.example.org,b.example.org\n"
        "  conflux control init broker --region eu=eu.example.org --region us=us.example\n"
        "  conflux control init broker --leaf gate.lan",
    )
    init.add_argument("directory", type=path, metavar="DIR", help="where the keys and files go; keep it safe")
    where = init.add_mutually_exclusive_group()
    where.add_argument(
        "--servers", type=_hosts, metavar="HOST[,HOST...]", help="one server, or the servers of a cluster"
    )
    where.add_argument(
        "--region",
        type=_region,
        action="append",
        metavar="NAME=HOST[,HOST...]",
        help="the servers of a region; repeat it for each, and gateways join them",
    )
    init.add_argument(
        "--leaf",
        type=host,
        action="append",
        default=[],
        metavar="HOST",
        help="add a site's own server, on its gateway; repeatable",
    )
    init.add_argument(
        "--port", type=count(1024, 65535), metavar="PORT", help="TCP port for nodes (default 4222, or as it was)"
    )
    announce = add(
        "announce",
        "control:announce",
        "tell all members which broker the realm has, or that it has none any more",
        "conflux control announce broker\n  conflux control announce --none",
    )
    which = announce.add_mutually_exclusive_group(required=True)
    which.add_argument("directory", type=path, nargs="?", metavar="DIR", help="what `conflux control init` made")
    which.add_argument("--none", action="store_true", help="the realm goes on with its LANs alone")
    push = add(
        "push",
        "control:push",
        "publish to the servers whom they must not admit any more",
        "conflux control push broker",
    )
    push.add_argument("directory", type=path, metavar="DIR", help="what `conflux control init` made")
    check = add(
        "check",
        "control:check",
        "connect to the broker as this node, and say what is wrong",
        "conflux control check\n  conflux control check --server nats.example.org:4222 --ca ca.pem",
    )
    check.add_argument(
        "--server", type=_server, metavar="HOST[:PORT]", help="one server, in place of the configured ones"
    )
    check.add_argument("--ca", type=path, metavar="FILE", help="the broker's authority, in place of the configured one")
    check.add_argument(
        "--broker", type=path, metavar="DIR", help="an operator's directory: with it, a refusal is explained exactly"
    )
    for command in (init, announce, push, check):
        json_option(command)


def _server(text: str) -> tuple[str, int]:
    return host_and_port(text.removeprefix("tls://"), BROKER_PORT)


def _hosts(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise argparse.ArgumentTypeError(f"must be hosts with commas between them, not {quoted(text)}")
    return tuple(map(host, words))


def _region(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, hosts = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=HOST[,HOST...], not {quoted(text)}")
    return name, _hosts(hosts)
