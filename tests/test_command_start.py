"""What a command prints is what it was given, and what its libraries say is not printed."""

import warnings

import pytest
from rich.table import Table

from iterconv.command_start import load_quietly, make_console


@pytest.mark.parametrize("name", ["a[/red]", "[red]x", ":smile:"])
def test_names_are_printed_letter_by_letter(capsys, name):
    table = Table(title=name)
    table.add_row(name)
    make_console().print(name, table)
    assert capsys.readouterr().out.count(name) == 3


def test_a_command_ignores_the_warnings_of_pillow():
    load_quietly()
    warnings.warn_explicit("large", RuntimeWarning, "Image.py", 1, "PIL.Image")
    with pytest.raises(RuntimeWarning):
        warnings.warn_explicit("large", RuntimeWarning, "pile.py", 1, "PILE")
