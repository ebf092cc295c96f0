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
    """Return the anchors of the glossary's terms, by the term in small letters.

    An entry that says "Also *cap*." is found by this word too.
    """
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    found = {}
    for heading, entry in re.findall(r"^## ([^\n]*)(.*?)(?=^## |\Z)", text, re.M | re.S):
        term = heading.lower()
        for word in (term, *re.findall(r"Also \*([^*]+)\*", entry)):
            found[word] = term.replace(" ", "-")
    return found


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
        text, name = match[0], match["name"]
        anchor = anchors.get((match["term"] or "").lower())
        key = name or anchor
        if key in seen or (name and name not in names) or not key:
            return text
        seen.add(key)
        return f"[{text}][keras_iterconv.{name}]" if name else f"[{text}]({glossary}#{anchor})"

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
