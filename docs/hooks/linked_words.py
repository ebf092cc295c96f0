"""Links at first use: from words to the glossary, and from public names to the API."""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).parents[1]
# Pages that are made by rules of their own, or that list what they name.
LEFT_OUT = ("api/", "results.md", "glossary.md", "commands.md", "contributing.md", "changelog.md")
# What stays as it is: front matter, code, headings, tables' heads, formulas, links, pictures, HTML.
KEPT = (
    r"\A---\n.*?\n---\n",
    r"^ *(?P<fence>```|~~~).*?^ *(?P=fence)",
    r"^ {4}[^\n]*",
    r"^#+ [^\n]*",
    r"^\|[^\n]*\|\n(?=\|[ :|-]+\|$)",
    r"\$\$.*?\$\$",
    r"\$[^$\n]+\$",
    r"!?\[(?:[^\[\]]|\[[^\]]*\])*\](?:\([^)]*\)|\[[^\]]*\])",
    r"<[^>\n]+>",
)


def terms() -> dict[str, str]:
    """Return the anchors of the glossary's terms, by the term in small letters."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    found = (heading.lower() for heading in re.findall(r"^## (.*)$", text, re.M))
    return {term: term.replace(" ", "-") for term in found}


def public_names() -> set[str]:
    """Return the names that have a page in the API."""
    pages = sorted((DOCS / "api").glob("*.md"))
    found = (
        re.findall(r"^::: keras_iterconv\.(\S+)", page.read_text("utf-8"), re.M) for page in pages
    )
    return {name for names in found for name in names}


def with_links(markdown: str, glossary: str, anchors: dict[str, str], names: Iterable[str]) -> str:
    """Return a page in which the first use of each term and name is a link.

    Args:
        markdown: The page.
        glossary: The path of the glossary, as from the page.
        anchors: The anchor of each term.
        names: The public names, without `ki.`.
    """
    # A longer term comes first: a Lipschitz bound is no bound.
    words = "|".join(re.escape(term) for term in sorted(anchors, key=len, reverse=True))
    patterns = (
        *KEPT,
        r"`ki\.(?P<name>[\w.]+)[^`\n]*`",
        r"`[^`]+`",
        rf"(?<![\w/.-])(?P<term>{words})s?(?![\w/-])",
    )
    names, seen = set(names), set()

    def link(match: re.Match) -> str:
        text, name, term = match[0], match["name"], (match["term"] or "").lower()
        key = name or term
        if key in seen or (name and name not in names) or not key:
            return text
        seen.add(key)
        return (
            f"[{text}][keras_iterconv.{name}]" if name else f"[{text}]({glossary}#{anchors[term]})"
        )

    return re.sub("|".join(patterns), link, markdown, flags=re.S | re.M | re.I)


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Add the links to a page.

    Args:
        markdown: The page.
        page: MkDocs's page.
    """
    place = page.file.src_uri
    if place.startswith(LEFT_OUT):
        return markdown
    glossary = posixpath.relpath("glossary.md", posixpath.dirname(place) or ".")
    return with_links(markdown, glossary, terms(), public_names())
