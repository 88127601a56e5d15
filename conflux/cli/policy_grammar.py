"""The grammar of `conflux policy ...`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, Help, Parser, adder, count, json_option, path

NUMBER = count(0, 2**40)  # of a policy: the second in which it was signed


def add_policy(commands: Commands) -> None:
    """Add `policy` and its commands."""
    policy = commands.add_parser(
        "policy", help="check, publish and show the rules that say who reaches what", formatter_class=Help
    )
    policy.description = "The policy of a realm: rules that say who reaches what."
    within = policy.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    add = adder(within)
    check = add(
        "check",
        "policy:check",
        "say everything that is wrong in a rule file, and run its tests",
        "conflux policy check home.toml\n"
        "  conflux realm members --json > members.json\n"
        "  conflux policy check home.toml --members members.json",
    )
    publish = add(
        "publish",
        "publish:publish",
        "check a rule file, sign it and have all nodes hear of it",
        "sudo conflux policy publish home.toml",
    )
    for command in (check, publish):
        command.add_argument("file", type=path, metavar="FILE", help="the rule file")
        _members_option(command)
        json_option(command)
    shown = add("show", "publish:shown", "print the rule file that counts here", "conflux policy show > home.toml")
    shown.add_argument("--number", type=NUMBER, metavar="NUMBER", help="an earlier policy that is kept here")
    json_option(shown)
    diff = add("diff", "publish:diff", "print what a file would change of the policy", "conflux policy diff home.toml")
    diff.add_argument("file", type=path, metavar="FILE", help="the rule file")
    json_option(diff)
    rollback = add(
        "rollback", "publish:rollback", "publish the policy before this one again", "sudo conflux policy rollback"
    )
    rollback.add_argument("--to", type=NUMBER, metavar="NUMBER", help="an earlier policy that is kept here")
    json_option(rollback)


def _members_option(command: Parser) -> None:
    command.add_argument(
        "--members",
        type=path,
        metavar="FILE",
        action="append",
        default=[],
        help="what `conflux realm members --json` printed, to find names and tags that are none; repeatable, "
        "for each issuer",
    )
