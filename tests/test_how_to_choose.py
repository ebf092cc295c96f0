"""Figures: those of How to choose stand in the linked section, those of the FAQ on some guide."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/how_to_choose.md"
# They have no measurements of their own: what they cite is measured on the other pages.
CITING = [
    *(PAGE.parent / name for name in ("index.md", "faq.md")),
    *sorted((PAGE.parent / "concepts").glob("*.md")),
]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\|.*\|$", PAGE.read_text(encoding="utf-8"), re.M)
    if not re.match(r"^\| (---|.*\| measured)", line)
]


def slug(heading):
    """Return the anchor of a heading, as Python-Markdown makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def section(target):
    """Return the text of the section that a link names, with its subsections."""
    name, _, anchor = target.partition("#")
    text = (PAGE.parent / name).read_text(encoding="utf-8")
    headings = [(len(h[1]), h) for h in re.finditer(r"^(#+) (.*)$", text, re.M)]
    (level, start), *_ = [(level, h) for level, h in headings if slug(h[2]) == anchor]
    ends = (h.start() for other, h in headings if h.start() > start.start() and other <= level)
    return text[start.start() : next(ends, len(text))]


def figures(text):
    """Return the numbers of a text, without thousands' commas."""
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text)))


def test_there_are_tables():
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}, {row[1]}")
def test_the_figures_of_a_row_are_those_of_its_source(row):
    targets = re.findall(r"\]\(([^)]+)\)", row[-1])
    prose = re.sub(r"\[[^\]]*\]\([^)]+\)|`[^`]*`", "", row[-1])
    assert targets or prose.startswith("not compared here")
    assert not figures(prose) - figures(" ".join(map(section, targets)))


def test_what_is_cited_elsewhere_is_measured_on_a_guide():
    guides = set(PAGE.parent.glob("*.md")) - {PAGE, *CITING}
    known = " ".join(page.read_text(encoding="utf-8") for page in guides)
    cited = 0
    for page in CITING:
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.S | re.M)
        for figure in re.findall(r"(?<![\w.])\d[\d.,]*(?:%| MB| ms)", prose):
            cited += 1
            number = re.escape(figure.rstrip("% MBms"))
            assert re.search(rf"(?<![\d.]){number}(?!\d)", known), (page.name, figure)
    assert cited >= 8
