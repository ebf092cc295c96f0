"""What a command prints is what it was given."""

import io
import sys

import pytest
from rich.table import Table

from keras_iterconv._support.console import make_console


@pytest.mark.parametrize("name", ["a[/red]", "[red]x", ":smile:", "\udcff", "é"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_printed_letter_by_letter(monkeypatch, name, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    console = make_console()
    table = Table(title=name)
    table.add_row(name)
    console.print(name, table)
    screen.flush()
    text = screen.buffer.getvalue()
    assert text.count(name.encode(encoding, "backslashreplace")) == 3
