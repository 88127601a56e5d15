"""The grammar of `conflux policy ...`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, Help, Parser, adder, json_option, path


def add_policy(commands: Commands) -> None:
    """Add `policy` and its commands."""
    policy = commands.add_parser("policy", help="check a file of rules that say who reaches what", formatter_class=Help)
    policy.description = "The policy of a realm: rules that say who reaches what."
    within = policy.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    check = adder(within)(
        "check",
        "policy:check",
        "say everything that is wrong in a rule file, and run its tests",
        "conflux policy check home.toml\n"
        "  conflux realm members --json > members.json\n"
        "  conflux policy check home.toml --members members.json",
    )
    check.add_argument("file", type=path, metavar="FILE", help="the rule file")
    check.add_argument(
        "--members",
        type=path,
        metavar="FILE",
        action="append",
        default=[],
        help="what `conflux realm members --json` printed, to find names and tags that are none; repeatable, "
        "for each issuer",
    )
    json_option(check)
