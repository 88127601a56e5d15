"""The grammar of `conflux help` and `conflux version`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, Help, json_option


def add_help(commands: Commands) -> None:
    """Add the commands about this program."""
    text = "show the help of a command, or the list of all"
    shown = commands.add_parser("help", help=text, description=f"{text.capitalize()}.", formatter_class=Help)
    shown.epilog = "example:\n  conflux help realm invite"
    shown.add_argument("words", nargs="*", metavar="COMMAND", help="the command, as `ping` or `realm invite`")
    shown.set_defaults(run="help:show")
    text = "print the version of this program"
    version = commands.add_parser("version", help=text, description=f"{text.capitalize()}.", formatter_class=Help)
    version.epilog = "example:\n  conflux version"
    json_option(version)
    version.set_defaults(run="help:version")
