"""What a command prints is what it was given, and what its libraries say is not printed."""

import warnings
from types import SimpleNamespace

import pytest
from rich.table import Table

from iterconv.command_start import load_quietly, make_console


@pytest.mark.parametrize("name", ["a[/red]", "[red]x", ":smile:"])
def test_names_are_printed_letter_by_letter(capsys, name):
    table = Table(title=name)
    table.add_row(name)
    make_console().print(name, table)
    assert capsys.readouterr().out.count(name) == 3


def test_lines_of_a_log_are_not_broken(capsys):
    table = Table.grid()
    table.add_row("word " * 30)
    make_console().print(table)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("of_notebook", [False, True])
def test_the_terminal_of_a_notebooks_command_counts_as_none(of_notebook, monkeypatch):
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True, encoding="utf-8"))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    if of_notebook:
        monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert make_console().is_terminal is not of_notebook


def test_a_command_ignores_the_warnings_of_pillow():
    load_quietly()
    warnings.warn_explicit("large", RuntimeWarning, "Image.py", 1, "PIL.Image")
    with pytest.raises(RuntimeWarning):
        warnings.warn_explicit("large", RuntimeWarning, "pile.py", 1, "PILE")
