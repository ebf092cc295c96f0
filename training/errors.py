"""Errors that a person at the command line can mend, and how they are shown."""

import sys
from collections.abc import Callable

import typer
from typer.exceptions import TyperException


class UserError(Exception):
    """Something the user can mend; the message is one sentence that says how."""

    exit_code = 2


class TrainingDivergedError(UserError):
    """The loss is not finite any more."""

    exit_code = 1


def run_command(app: typer.Typer, name: str) -> None:
    """Run a command line; show what the user can mend in one line, without a traceback.

    Args:
        app: The command line.
        name: What the program is called in its help text.

    Raises:
        SystemExit: Always; code 0 for success, 2 for a usage error, 1 for a run that failed, 130
            after Ctrl-C.
    """
    try:
        code = app(prog_name=name, standalone_mode=False)
    except (UserError, TyperException) as error:
        message = str(error)
        if isinstance(error, TyperException):
            message = f"{error.format_message()} See {name} --help."
        print("Error:", " ".join(message.split()), file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        code = 130
    raise SystemExit(code or 0)


def as_user_error(function: Callable, *args, **kwargs):
    """Call a function of the library whose `ValueError` is about what the user asked for."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise UserError(str(error)) from error
