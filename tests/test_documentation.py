"""What README and docs say: their code runs, their tables and links are true."""

import re
from pathlib import Path

import pytest

import keras_iterconv as ki
from training.settings import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_gap_is_left_open(page):
    assert not re.search(r"@[A-Z_]+@|TODO|TBD", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_model_table_is_true():
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| ([\d,]+) \| ([\d,]+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert [name for name, *_ in rows] == ki.list_models()
    for name, depth, parameters in rows:
        model = ki.create_model(name, (32, 32, 3), 10)
        assert int(depth) == ki.processing_depth(model), name
        assert int(parameters.replace(",", "")) == model.count_params(), name


def test_every_option_and_preset_that_is_named_exists():
    text = "".join(page.read_text() for page in PAGES)
    commands = [ROOT / "training" / name for name in ("fit.py", "reproduce/__main__.py")]
    commands += (ROOT / "export" / name for name in ("publish.py", "predict.py"))
    commands += (ROOT / "benchmarks").glob("*.py")
    source = "".join(path.read_text() for path in commands)
    options = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)) - {"help"}
    # An option is an argument's name, or is spelt out.
    missing = {
        name
        for name in options
        if not re.search(rf"\b{name.replace('-', '_')}:|--{name}\b", source)
    }
    assert not missing
    assert set(PRESETS) <= set(re.findall(r"`([\w-]+)`", (ROOT / "docs/training.md").read_text()))
