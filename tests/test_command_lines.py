"""What all commands have in common: help, words, exit codes."""

import dataclasses
import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import keras_iterconv as ki
from iterconv import cli
from iterconv.command_errors import (
    UserError,
    as_user_error,
    flags_of,
    in_command_words,
    run_command,
)
from iterconv.command_help import make_command_app
from keras_iterconv._support.extras import MissingExtraError
from keras_iterconv._support.files import FileError
from keras_iterconv.datasets import DatasetError
from keras_iterconv.runs import RunError
from training.settings import Settings

ROOT = Path(__file__).parents[1]
GROUPS = ("Model and data", "Training", "Depth of NAIS-Nets", "Residual nets", "Run")
COMMANDS = ("fit", "launch", "publish", "demo", "predict", "reproduce")


def shown(*arguments):
    result = CliRunner().invoke(cli.make_app(), arguments)
    assert result.exit_code == 0, result.output
    return result.output


def commands_of(help):
    return help.split("Commands:\n")[1].split("\n\n")[0]


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_script_lists_every_command(arguments):
    commands = commands_of(shown(*arguments))
    assert re.findall(r"^  (\w+) ", commands, re.M) == list(COMMANDS)
    assert "..." not in commands


def test_a_command_of_commands_shows_its_help():
    assert shown("reproduce") == shown("reproduce", "--help")
    assert "..." not in commands_of(shown("reproduce"))


def test_the_version():
    assert re.fullmatch(r"keras_iterconv \d+\.\d+\.\d+\S*\n", shown("--version"))


def test_the_options_of_fit_are_grouped_and_show_their_defaults():
    # Wide enough for a line an option.
    help = CliRunner().invoke(cli.make_app(), ["fit", "--help"], terminal_width=300).output
    groups = [section.splitlines() for section in help.split("\n\n") if section.startswith(GROUPS)]
    assert [lines[0] for lines in groups] == [f"{group}:" for group in GROUPS]
    lines = {line.split()[0]: line for group in groups for line in group[1:]}
    for field in dataclasses.fields(Settings):
        line = lines[f"--{field.name.replace('_', '-')}"]
        if field.default not in (None, False, dataclasses.MISSING):
            shown = field.default if isinstance(field.default, str) else f"{field.default:g}"
            assert re.search(rf"\[default: (.* )?{re.escape(shown)}\]$", line)


def options_of_all(command):
    for inner in getattr(command, "commands", {}).values():
        yield from options_of_all(inner)
    yield from (option for option in command.params if option.param_type_name == "option")


def test_every_default_is_shown():
    """Options that are nothing unless they are given have none."""
    options = options_of_all(typer.main.get_command(cli.make_app()))
    unset = (option for option in options if option.default is None and not option.is_flag)
    silent = {option.name for option in unset if not isinstance(option.show_default, str)}
    assert silent == {"model", "preset", "resume"}


FLAGS = {"max_unroll": "--max-unroll", "model": "--model"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "`max_unroll` must be an integer of at least 1. Received: max_unroll=0",
            "--max-unroll must be an integer of at least 1. Received: --max-unroll 0",
        ),
        (
            '`solver="anderson"` needs `tied`. Received: tied=False',
            '`solver="anderson"` needs `tied`. Received: tied=False',
        ),
        ("two\nlines, `model` =\n", "two lines, --model ="),
    ],
)
def test_messages_name_options_and_not_arguments(message, words):
    assert in_command_words(message, FLAGS) == words


def test_an_argument_of_another_name_is_renamed():
    def build(name):
        raise ValueError(f"`name` must be one of a, b. Received: name={name!r}")

    with pytest.raises(UserError) as caught:
        as_user_error(build, "c", names={"name": "model"})
    assert str(caught.value) == "`model` must be one of a, b. Received: model='c'"


def test_the_flags_of_all_options_are_known():
    flags = flags_of(typer.main.get_command(cli.make_app()))
    assert flags["max_unroll"] == "--max-unroll"
    assert flags["shared_initialization"] == "--shared-initialization"
    assert flags["zoo"] == "--zoo"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command that does what a function does; return code, screen and errors."""

    def run(function):
        monkeypatch.setattr("sys.argv", ["command"])
        with pytest.raises(SystemExit) as stop:
            run_command(make_command_app(function), "command")
        return (stop.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("do that"), 2, "do that"),
        (FileError("config.json is a link"), 2, "config.json is a link"),
        (DatasetError("no data"), 2, "no data"),
        (MissingExtraError("install it"), 2, "install it"),
        (RunError("no run"), 2, "no run"),
        (ki.ZooError("no zoo"), 2, "no zoo"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "a/b: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "the output: No space left on device",
        ),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_what_a_user_can_mend_is_one_line(run, error, code, said):
    def fail():
        raise error

    expected = "Interrupted.\n" if said is None else f"Error: {said}\n"
    assert run(fail) == (code, "", expected)


def test_a_fault_of_the_program_keeps_its_traceback(run, monkeypatch):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--layers", "No such option: --layers. See command --help."),
        ("more", "Got unexpected extra argument(s) (more). See command --help."),
    ],
)
def test_an_argument_that_does_not_fit_names_the_help(monkeypatch, capsys, argument, said):
    def command(epochs: int = 1):
        pass

    monkeypatch.setattr("sys.argv", ["command", argument])
    with pytest.raises(SystemExit) as stop:
        run_command(make_command_app(command), "command")
    assert (stop.value.code, capsys.readouterr().err) == (2, f"Error: {said}\n")


PRINT = """
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

def say():
    print({text})

run_command(make_command_app(say), "say")
"""


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, **options)


def test_a_full_device_is_one_line():
    with open("/dev/full", "w") as full:
        done = python(PRINT.format(text="'x'"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "Error: the output: No space left on device\n")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_path_that_is_no_text_is_printed(locale):
    code = PRINT.format(text=r"b'caf\xe9'.decode('utf-8', 'surrogateescape')")
    done = python(code, capture_output=True, env={"LC_ALL": locale, "PATH": ""})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout in (rb"caf\udce9" + b"\n", b"caf\xe9\n")
