"""The layout of all commands' help: plain text, options in groups, with their defaults."""

import re
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# The group of options that name no other group.
OTHER_OPTIONS = "Options"


class Command(TyperCommand):
    """A command whose help shows its options in the groups that `rich_help_panel` names."""

    def format_options(self, ctx, formatter):
        """Write arguments and options."""
        _write_groups(self, ctx, formatter)


class CommandGroup(TyperGroup):
    """A command with sub-commands."""

    def format_options(self, ctx, formatter):
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        _write_groups(self, ctx, formatter)


def make_app(help: str) -> typer.Typer:
    """Return a Typer app for sub-commands; without a sub-command it prints its help.

    Args:
        help: The description in one sentence.
    """
    app = typer.Typer(
        cls=CommandGroup,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        help=help,
    )

    @app.callback()
    def show_help(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.")
        ] = False,
    ) -> None:
        if version:
            print(f"keras_iterconv {metadata.version('keras-iterconv')}")
        elif context.invoked_subcommand is None:
            print(context.get_help())

    return app


def make_command_app(function: Callable[..., None]) -> typer.Typer:
    """Return the Typer app of one command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=Command)(function)
    return app


def options_of(group: str) -> Callable:
    """Return a function that creates the options of a group of the help.

    Args:
        group: The group's title.

    Returns:
        A function of an option's help, of the text of its default (empty for no default), and of
        its flags if they do not follow from the parameter's name.
    """

    def make(help: str, default: str = "", *flags: str) -> Any:
        return typer.Option(*flags, help=help, show_default=default or False, rich_help_panel=group)

    return make


def _write_groups(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, list] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        argument = parameter.param_type_name == "argument"
        title = "Arguments" if argument else parameter.rich_help_panel or OTHER_OPTIONS
        # Typer puts parentheses around a default that is given as text.
        name, text = record
        text = re.sub(r"\[default: \((.*)\)\]$", r"[default: \1]", text)
        groups.setdefault(title, []).append((name, text))
    # Moved to the end, since it includes --help.
    groups |= {OTHER_OPTIONS: groups.pop(OTHER_OPTIONS, [])}
    for title, records in groups.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
