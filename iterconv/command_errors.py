"""Errors that a user of the command line can correct, and their output."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.exceptions import TyperException

# The exit code that shells return after Ctrl-C.
INTERRUPTED = 130


class UserError(Exception):
    """Error that the user can correct; the message is one sentence that includes the remedy."""

    exit_code = 2


class TrainingDivergedError(UserError):
    """Error of a training run whose loss or weights are not finite."""

    exit_code = 1


def run_command(app: typer.Typer, name: str) -> None:
    """Run a command; print errors that the user can correct in one line, without a traceback.

    Args:
        app: The Typer app.
        name: The program's name in its help text.

    Raises:
        SystemExit: Always; code 0 for success, 2 for a usage error, 1 for a run that failed, 130
            after Ctrl-C.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # A path may hold undecodable bytes, and the terminal's encoding may lack a character.
        sys.stdout.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        code = command(prog_name=name, standalone_mode=False)
        # Flushed here, so that a full device raises its error within this block.
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, for example `head`, has ended.
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
    # Typer returns this code for a KeyboardInterrupt that it has caught itself.
    if code == INTERRUPTED:
        print("Interrupted.", file=sys.stderr)
    raise SystemExit(code or 0)


def _message(error: Exception) -> str | None:
    """Return the message of an error; None for an error of the program itself."""
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        hint = "" if context is None else f" See {context.command_path} --help."
        return error.format_message().rstrip(".") + "." + hint
    if isinstance(error, OSError) and error.strerror:
        place = "the output" if error.filename is None else os.fsdecode(error.filename)
        return f"{place}: {error.strerror}"
    if isinstance(error, UserError):
        return str(error)
    # Not imported here: the library loads TensorFlow. Its errors come from where it is loaded.
    library = sys.modules.get("keras_iterconv._support.errors")
    return str(error) if library and isinstance(error, library.CorrectableError) else None


def _drop_output() -> None:
    """Redirect the output to the null device, or its buffer fails again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def flags_of(command: Any) -> dict[str, str]:
    """Return the longest flag of each option by its parameter's name, sub-commands included."""
    flags = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            flags[parameter.name] = max(parameter.opts, key=len)
    for inner in getattr(command, "commands", {}).values():
        flags = {**flags_of(inner), **flags}
    return flags


def in_command_words(message: str, flags: Mapping[str, str]) -> str:
    """Return a message of the library in one line, with arguments replaced by flags.

    Args:
        message: The message, for example "`max_unroll` must be at least 1. Received: max_unroll=0".
        flags: The flags by argument; other names are not replaced.
    """
    given = {name: f"{flag} " for name, flag in flags.items()}
    return " ".join(_rename(message, flags, given).split())


def _rename(message: str, quoted: Mapping[str, str], given: Mapping[str, str]) -> str:
    """Replace `name` by its value in `quoted`, and name= before a value by its value in `given`."""
    message = re.sub(r"`(\w+)`", lambda found: quoted.get(found[1], found[0]), message)
    return re.sub(r"\b(\w+)=(?=\S)", lambda found: given.get(found[1], found[0]), message)


def check_folder(option: str, path: str | os.PathLike) -> None:
    """Raise `UserError` if a folder's name is invalid for one of the libraries that write into it.

    Args:
        option: The option that named the folder, for the message.
        path: The folder. An empty name is refused, since it would mean the current folder.

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


def as_user_error(
    function: Callable, *args: Any, names: Mapping[str, str] | None = None, **kwargs: Any
) -> Any:
    """Return a function's result, with its `ValueError` raised as a `UserError`.

    Args:
        function: The function.
        *args: The positional arguments.
        names: The arguments' names on the command line, where they differ.
        **kwargs: The keyword arguments.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        names = names or {}
        quoted = {name: f"`{other}`" for name, other in names.items()}
        given = {name: f"{other}=" for name, other in names.items()}
        raise UserError(_rename(str(error), quoted, given)) from error
