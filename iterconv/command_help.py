"""The one layout of all commands' help: plain text, options in groups, with their defaults."""

import re
from collections.abc import Callable
from importlib import metadata
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

# What an option without a group of its own belongs to.
OTHER_OPTIONS = "Options"


class Command(TyperCommand):
    """A command whose help shows its options by the groups that `rich_help_panel` names."""

    def format_options(self, ctx, formatter):
        """Write arguments and options."""
        _write_groups(self, ctx, formatter)


class CommandGroup(TyperGroup):
    """A command of commands."""

    def format_options(self, ctx, formatter):
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        _write_groups(self, ctx, formatter)


def make_app(help: str) -> typer.Typer:
    """Return a command line of commands; without one of them it shows its help.

    Args:
        help: What it is for, one sentence.
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
        version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    ) -> None:
        if version:
            print(f"keras_iterconv {metadata.version('keras-iterconv')}")
        elif context.invoked_subcommand is None:
            print(context.get_help())

    return app


def make_command_app(function) -> typer.Typer:
    """Return the command line of one command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=Command)(function)
    return app


def options_of(group: str) -> Callable:
    """Return a function that makes the options of a group of the help.

    Args:
        group: The group's title.

    Returns:
        A function of an option's help, of what the help calls its default, nothing for none, and
        of its flags where they do not follow from the parameter's name.
    """

    def make(help: str, default: str = "", *flags: str):
        return typer.Option(*flags, help=help, show_default=default or False, rich_help_panel=group)

    return make


def _write_groups(command, ctx, formatter) -> None:
    groups = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        argument = parameter.param_type_name == "argument"
        title = "Arguments" if argument else parameter.rich_help_panel or OTHER_OPTIONS
        # Typer puts a default that it was told into parentheses.
        name, text = record
        text = re.sub(r"\[default: \((.*)\)\]$", r"[default: \1]", text)
        groups.setdefault(title, []).append((name, text))
    # Last, since --help is among them.
    groups |= {OTHER_OPTIONS: groups.pop(OTHER_OPTIONS, [])}
    for title, records in groups.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
