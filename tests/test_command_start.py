"""What a command prints is what it was given."""

import pytest
from rich.table import Table

from iterconv.command_start import make_console


@pytest.mark.parametrize("name", ["a[/red]", "[red]x", ":smile:"])
def test_names_are_printed_letter_by_letter(capsys, name):
    table = Table(title=name)
    table.add_row(name)
    make_console().print(name, table)
    assert capsys.readouterr().out.count(name) == 3
