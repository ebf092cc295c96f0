"""The built site: strict, of its own files alone, and shown whole on a desktop and on a phone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.browser import browser_page

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[1]
# What is wider than the page and in nothing that scrolls; formulas that are not drawn.
FAULTS = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (node) => node && (
    getComputedStyle(node).overflowX !== "visible" || scrolls(node.parentElement));
  const wide = [...document.querySelectorAll(".md-content *")].filter(
    (node) => node.getBoundingClientRect().right > width + 1 && !scrolls(node));
  const missing = [...document.querySelectorAll(".arithmatex")].filter(
    (node) => !(node.querySelector("svg")?.getBoundingClientRect().width > 2));
  return [...wide, ...missing].map((node) => node.outerHTML.slice(0, 200));
})()"""
DRAWN = "!document.querySelector('.arithmatex') || MathJax?.startup?.promise?.then(() => true)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, where a link or an anchor that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        # It says that MkDocs 2 will not do, which the extra does not take.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = sorted(page for page in site.rglob("*.html") if page.name != "404.html")
    assert len(found) > 50
    return found


def test_pages_load_the_site_s_own_files_alone(pages):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        # A function that shares its name with a module is described, and not the module.
        assert "doc-symbol-module" not in text
        tags = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[^>]*>", text)
        tags += re.findall(r"<link\b[^>]*\brel=\"?(?:stylesheet|icon)[^>]*>", text)
        assert tags
        for tag in tags:
            target = re.search(r"(?:src|href)=\"?([^\" >]+)", tag)[1]
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_shown_whole(pages, tmp_path, width, scheme):
    with browser_page(tmp_path / "profile", seconds=280) as browser:
        browser.resize(width, 900, scheme)
        formulas = 0
        for page in pages:
            browser.open(page.as_uri(), f"location.href === {page.as_uri()!r}")
            browser.run(DRAWN)
            assert browser.run(FAULTS) == [], page.name
            formulas += browser.run("document.querySelectorAll('mjx-container').length")
        assert formulas > 80
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


def test_the_table_of_trained_nets_sorts(pages, tmp_path):
    (page,) = (page for page in pages if "trained_nets" in page.as_posix())
    column = (
        "[...document.querySelectorAll('.sortable tbody tr')]"
        ".map((row) => row.cells[{0}].textContent.trim())"
    )
    with browser_page(tmp_path / "profile") as browser:
        browser.open(page.as_uri(), "document.querySelector('.sortable th button') !== null")
        count = browser.run("document.querySelectorAll('.sortable th').length")
        numbers = set()
        for number in range(count):
            for order in ("ascending", "descending"):
                browser.run(f"document.querySelectorAll('.sortable th button')[{number}].click()")
                said = browser.run(
                    "[...document.querySelectorAll('.sortable th')].map((cell) => cell.ariaSort)"
                )
                assert [place for place in said if place] == [order]
                assert said[number] == order
                texts = browser.run(column.format(number))
                values = [re.sub(r"[,%]", "", text).split(" ")[0] for text in texts]
                # Words are sorted as the browser's language does.
                if all(re.fullmatch(r"[\d.]+", value) for value in values):
                    numbers.add(number)
                    values = [float(value) for value in values]
                    assert values == sorted(values, reverse=order == "descending")
    assert len(numbers) > 2


def test_the_search_finds_a_page(site, tmp_path):
    with browser_page(tmp_path / "profile") as browser:
        browser.open(
            (site / "index.html").as_uri(), "document.querySelector('.md-search__input') !== null"
        )
        browser.run(
            "(() => { const input = document.querySelector('.md-search__input'); input.focus();"
            " input.value = 'certify'; for (const kind of ['input', 'keyup'])"
            " input.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )
        browser.wait("document.querySelector('.md-search-result__item a') !== null")
        found = browser.run(
            "[...document.querySelectorAll('.md-search-result__item a')].map((link) => link.href)"
        )
        assert any("certif" in link for link in found)
