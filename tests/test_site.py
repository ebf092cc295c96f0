"""The site: short sentences where one starts, a page for each public name, generated pages."""

import importlib.util
import inspect
import re
import types
from collections import Counter
from pathlib import Path

import pytest

import keras_iterconv as ki
from export.publish import publish
from training.fit import fit

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
    text = re.sub(r"^\|[ :|-]+\|$", "", text, flags=re.M)
    # A heading, a list item, a cell and an empty line end a sentence.
    text = re.sub(r"^(#+|[-*]|\d+\.) ", "\n\n", text, flags=re.M)
    parts = re.split(r"\n\s*\n|(?<=[.!?])[)*_\"]*\s+|\|", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def test_sentences_are_found():
    text = "# A title\n\nOne two. Three\nfour: five!\n- [six](no.md)\n\n```text\nno.\n```\n"
    assert sentences(text) == ["A title", "One two.", "Three four: five!", "six"]
    rows = "| a | b |\n| --- | ---: |\n| seven eight | `nine`: [ten. Eleven](no.md) |\n"
    assert sentences(rows) == ["a", "b", "seven eight", "`nine`: ten.", "Eleven"]


@pytest.mark.parametrize("page", START, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_sentences_are_short_where_one_starts(page):
    found = sentences(page.read_text(encoding="utf-8"))
    assert found
    assert not [sentence for sentence in found if len(sentence.split()) > LONGEST]


def load_hook(name):
    """Return a hook of MkDocs as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINKED_WORDS = load_hook("linked_words")
GENERATED_PAGES = load_hook("generated_pages")
TUTORIALS = load_hook("tutorials")


def names_of(module):
    """Return the public names of a module: its `__all__`, or the functions and classes in it."""
    if listed := getattr(module, "__all__", None):
        return listed
    things = vars(module).items()
    return [
        name
        for name, thing in things
        if inspect.getmodule(thing) is module and not name.startswith("_")
        if isinstance(thing, type | types.FunctionType)
    ]


def test_every_public_name_has_one_page():
    public = {name for name in ki.__all__ if not isinstance(getattr(ki, name), types.ModuleType)}
    for module in ("datasets", "projections", "spectral", "stop", "unrolling"):
        public |= {f"{module}.{name}" for name in names_of(getattr(ki, module))}
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md")]
    described = Counter(re.findall(r"^::: keras_iterconv\.(\S+)$", "\n".join(pages), re.M))
    assert set(described.values()) == {1}
    assert not public - set(described)
    assert not [name for name in described if not has_attribute(ki, name)]
    listed = re.findall(r"\]\[keras_iterconv\.([\w.]+)\]", (DOCS / "api/index.md").read_text())
    # Constants are on their pages alone.
    assert set(listed) == {name for name in described if not name.rpartition(".")[2].isupper()}


def has_attribute(module, path):
    for name in path.split("."):
        module = getattr(module, name, None)
    return module is not None


def test_words_and_names_are_links_where_a_page_first_uses_them():
    page = """# A state

The state, `ki.certify(x)` and $state$ of [an update](x.md).

```python
update = ki.certify
```

| update | a |
| --- | --- |
| states, updates, substate | `ki.certify`, `ki.other`, `a state` |
"""
    linked = LINKED_WORDS.with_links(
        page, "../glossary.md", {"state": "state", "update": "update"}, ["certify"]
    )
    assert linked == page.replace("The state", "The [state](../glossary.md#state)").replace(
        "`ki.certify(x)`", "[`ki.certify(x)`][keras_iterconv.certify]"
    ).replace("states, updates", "states, [updates](../glossary.md#update)")


def test_a_long_term_is_not_linked_by_a_part_of_it():
    anchors = {"depth": "depth", "adaptive depth": "adaptive-depth"}
    linked = LINKED_WORDS.with_links("Adaptive depth. Depth.", "g.md", anchors, [])
    assert linked == "[Adaptive depth](g.md#adaptive-depth). [Depth](g.md#depth)."


def test_the_page_of_commands_has_each_option():
    page = GENERATED_PAGES.commands_page()
    headings = re.findall(r"^#+ iterconv (.*)$", page, re.M)
    assert headings[:6] == ["fit", "launch", "publish", "demo", "predict", "reproduce"]
    sources = {"fit": fit, "publish": publish}
    for command, function in sources.items():
        section = re.split(rf"^## iterconv {command}$", page, flags=re.M)[1].split("\n## ")[0]
        parameters = set(inspect.signature(function).parameters) - {"run", "context"}
        options = {name.replace("_", "-") for name in parameters}
        assert len(options) > 5
        assert options <= set(re.findall(r"^\| `--([\w-]+)", section, re.M))
    source = (DOCS.parent / "export/predict.py").read_text(encoding="utf-8")
    section = page.split("\n## iterconv predict\n")[1].split("\n## ")[0]
    options = set(re.findall(r'"(--[a-z-]+)"', source)) - {"--help"}
    assert len(options) > 3
    assert not [option for option in options if option not in section]


def test_the_table_of_trained_nets_has_each():
    page = GENERATED_PAGES.trained_nets_page()
    assert re.findall(r"^\| `(\w+)`", page, re.M) == ki.list_pretrained(
        DOCS.parent / "saved_models"
    )


def test_a_tutorial_is_shown_with_its_outputs():
    def code(source, outputs, **metadata):
        return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": outputs}

    picture = {"data": {"image/png": "YQ==\n", "text/plain": "<Figure>"}, "output_type": "x"}
    picture["metadata"] = {"image/png": {"width": 300, "height": 2}}
    cells = [
        {"cell_type": "markdown", "source": "# A title", "metadata": {}},
        code(["a = 1\n", "a"], [{"data": {"text/plain": "1"}, "metadata": {}}]),
        code("%%bash\nls", [{"name": "stdout", "text": "b  \n"}, {"name": "stderr", "text": "no"}]),
        code("draw()\n\nshow()", [picture], figure="A curve"),
    ]
    page, pictures = TUTORIALS.as_markdown({"cells": cells}, "net")
    assert page.split("\n\n", 5) == [
        "# A title",
        "```python\na = 1\na\n```",
        "```{ .text .output }\n1\n```",
        "```bash\nls\n```",
        "```{ .text .output }\nb\n```",
        '??? note "Code of the figure"\n\n    ```python\n    draw()\n\n    show()\n    ```\n\n'
        "![A curve](net-1.png){ width=300 }",
    ]
    assert pictures == {"net-1.png": b"a"}


def test_the_index_of_the_tutorials_has_each():
    index = (DOCS / "tutorials/index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[.*\]\((\w+\.md)\)", index, re.M)) == [
        page.name for page in TUTORIALS.tutorials()
    ]


@pytest.mark.parametrize("page", TUTORIALS.tutorials(), ids=lambda page: page.stem)
def test_a_tutorial_describes_its_figures_and_says_what_to_try_next(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^## What to try next\n\n(- .*\n?(?:  .*\n?)*){3,}\Z", text, re.M)
    drawing = re.findall(
        r"^(```python.*)\n(?:(?!```).*\n)*?(?:plt\.show\(\)|figure)\n```", text, re.M
    )
    assert drawing
    assert all(re.fullmatch('```python figure="[^"]{20,}"', line) for line in drawing)
