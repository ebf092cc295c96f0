"""The pages of the site: short sentences where one starts, and a page for each public name."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
START = [
    DOCS / "index.md",
    *sorted((DOCS / "start").rglob("*.md")),
    *sorted((DOCS / "tutorials").rglob("*.md")),
]
LONGEST = 35


def sentences(text):
    """Return the sentences of a page: those of its prose, list items and cells of tables."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.S | re.M)
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    # A heading, a list item, a row and an empty line end a sentence.
    text = re.sub(r"^(#+|[-*]|\d+\.|\|.*) ", "\n\n", text, flags=re.M)
    parts = re.split(r"\n\s*\n|(?<=[.!?])[)*_\"]*\s+|\|", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def test_sentences_are_found():
    text = "# A title\n\nOne two. Three\nfour: five!\n- [six](no.md)\n\n```text\nno.\n```\n"
    assert sentences(text) == ["A title", "One two.", "Three four: five!", "six"]


@pytest.mark.parametrize("page", START, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_sentences_are_short_where_one_starts(page):
    found = sentences(page.read_text(encoding="utf-8"))
    assert found
    assert not [sentence for sentence in found if len(sentence.split()) > LONGEST]
