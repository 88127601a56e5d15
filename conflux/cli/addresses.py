"""`conflux ip` and `conflux hosts`: the overlay addresses of nodes, for commands and files of other programs."""

from __future__ import annotations

import argparse
import os
import sys

from conflux.cli import context
from conflux.cli.observe import Answer, answered, print_json
from conflux.errors import UserError

# Names that /etc/hosts gives to the host itself: a node that is called so must not take them over.
HOST_NAMES = frozenset({"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "broadcasthost"})


def ip(options: argparse.Namespace) -> int:
    """Print the overlay addresses of a node, or of this one."""
    got = answered(context.daemon(options).call("address", name=options.name or ""))
    if options.json:
        return print_json(got)
    wanted = [got[family] for family in ("ipv6", "ipv4") if options.family in (None, family) and got[family]]
    if not wanted:
        word = {"ipv6": "IPv6", "ipv4": "IPv4"}.get(options.family, "overlay")
        raise UserError(f"{got['name']} has no {word} address")
    sys.stdout.write("".join(f"{address}\n" for address in wanted))
    return 0


def hosts(options: argparse.Namespace) -> int:
    """Print lines for /etc/hosts."""
    got = answered(context.daemon(options).look("nodes"))
    if options.json:
        return print_json(got)
    lines, left_out = host_lines(got, os.uname().nodename.partition(".")[0].lower())
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    for name in left_out:
        sys.stderr.write(f"conflux: {name}: left out, as it is a name of this host itself\n")
    return 0


def host_lines(got: Answer, host: str) -> tuple[list[str], list[str]]:
    """Return the lines for /etc/hosts, by name, and the names that are left out: another node's that is this host's.

    host: this host's own name.  Of several nodes with one name, the one that answers to it has the lines.
    """
    own = got["node"]
    taken = HOST_NAMES | {host, own["name"]}
    left_out = [row["name"] for row in got["nodes"] if row["named"] and row["name"] in taken]
    rows = [own, *(row for row in got["nodes"] if row["named"] and row["name"] not in taken)]
    rows.sort(key=lambda row: str(row["name"]))
    families = [family for family in ("ipv6", "ipv4") if own[family]]
    return [f"{row[family]}\t{row['name']}" for row in rows for family in families if row[family]], left_out
