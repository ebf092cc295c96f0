"""Errors that a person at the command line can mend, and how they are shown."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping

import typer
from typer.exceptions import TyperException

# What shells return after Ctrl-C.
INTERRUPTED = 130


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
    if hasattr(sys.stdout, "reconfigure"):
        # A path may hold bytes that are no text, and a terminal may lack a letter.
        sys.stdout.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        code = command(prog_name=name, standalone_mode=False)
        # A device that is full says so now, and not after the last line of the program.
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has ended, `head` for example.
        _drop_output()
        code = 1
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print("Error:", in_command_words(message, flags_of(command)), file=sys.stderr)
        code = getattr(error, "exit_code", UserError.exit_code)
        if isinstance(error, OSError):
            _drop_output()
    # Typer makes a code of what it has caught itself.
    if code == INTERRUPTED:
        print("Interrupted.", file=sys.stderr)
    raise SystemExit(code or 0)


def _message(error: Exception) -> str | None:
    """Return what to tell of an error in one line; None for a fault of the program."""
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        hint = "" if context is None else f" See {context.command_path} --help."
        return error.format_message().rstrip(".") + "." + hint
    if isinstance(error, OSError) and error.strerror:
        place = "the output" if error.filename is None else os.fsdecode(error.filename)
        return f"{place}: {error.strerror}"
    if isinstance(error, UserError):
        return str(error)
    # Imported only now: a command that ends well does not wait for them.
    from keras_iterconv._support.extras import MissingExtraError
    from keras_iterconv._support.files import FileError
    from keras_iterconv.datasets import DatasetError
    from keras_iterconv.runs import RunError
    from keras_iterconv.zoo.index import ZooError

    told = (FileError, ZooError, DatasetError, MissingExtraError, RunError)
    return str(error) if isinstance(error, told) else None


def _drop_output() -> None:
    """Send what is still to be written nowhere; the interpreter would fail on it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def flags_of(command) -> dict[str, str]:
    """Return the longest flag of each option, by the parameter's name, sub-commands included."""
    flags = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            flags[parameter.name] = max(parameter.opts, key=len)
    for inner in getattr(command, "commands", {}).values():
        flags = {**flags_of(inner), **flags}
    return flags


def in_command_words(message: str, flags: Mapping[str, str]) -> str:
    """Return a message of the library, one line, with the flags in the place of the arguments.

    Args:
        message: For example "`max_unroll` must be at least 1. Received: max_unroll=0".
        flags: The flags by argument; other names stay as they are.
    """
    given = {name: f"{flag} " for name, flag in flags.items()}
    return " ".join(_rename(message, flags, given).split())


def _rename(message: str, quoted: Mapping[str, str], given: Mapping[str, str]) -> str:
    """Replace `name` by its word in `quoted`, and name= before a value by that in `given`."""
    message = re.sub(r"`(\w+)`", lambda found: quoted.get(found[1], found[0]), message)
    return re.sub(r"\b(\w+)=(?=\S)", lambda found: given.get(found[1], found[0]), message)


def check_folder(option: str, path: str | os.PathLike) -> None:
    """Refuse the name of a folder that not all libraries take that write into it.

    Args:
        option: What the user gave it as.
        path: The folder; the empty name would be the current one.

    Raises:
        UserError: The name is empty, or not UTF-8.
    """
    name = os.fspath(path)
    if not name:
        raise UserError(f"{option} must name a folder")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{option} must be a path in UTF-8: {name!r}") from error


def as_user_error(function: Callable, *args, names: Mapping[str, str] | None = None, **kwargs):
    """Call a function of the library whose `ValueError` is about what the user asked for.

    Args:
        function: The function.
        *args: Its arguments.
        names: What its arguments are called on the command line, where that differs.
        **kwargs: Its arguments.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        names = names or {}
        quoted = {name: f"`{other}`" for name, other in names.items()}
        given = {name: f"{other}=" for name, other in names.items()}
        raise UserError(_rename(str(error), quoted, given)) from error
