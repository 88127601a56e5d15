"""The grammar of `conflux config ...`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, Help, Parser, adder, json_option, path


def add_config(commands: Commands) -> None:
    """Add `config` and its commands."""
    config = commands.add_parser("config", help="check the configuration, or show what counts", formatter_class=Help)
    config.description = "The configuration: what is wrong in it, and which values count."
    within = config.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    add = adder(within)
    check = add(
        "check",
        "config:check",
        "say everything that is wrong in the configuration",
        "conflux config check\n  conflux config check new.toml && sudo cp new.toml /etc/conflux/conflux.toml",
    )
    check.add_argument("file", nargs="?", type=path, metavar="FILE", help="another file than the one that counts")
    json_option(check)
    show = add(
        "show",
        "config:show_values",
        "print every key with the value that counts, and where it comes from",
        "conflux config show\n  conflux config show --json",
    )
    json_option(show)
    mask = add(
        "mask",
        "config:write_masked",
        "write the configuration without its secrets, for a program that shall not have them",
        "conflux config mask for-the-page.toml",
    )
    mask.add_argument("file", type=path, metavar="FILE", help="where it goes")
    mask.add_argument("--force", action="store_true", help="replace the file")
    json_option(mask)
