"""What README and docs say: their code runs, their tables and links are true."""

import functools
import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.models.registry import FORMER_NAMES
from training.settings import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ("commands.md", "trained_nets.md", "contributing.md", "changelog.md")
TRAINING = (ROOT / "docs/training.md").read_text()
ZOO = ROOT / "saved_models"
MODELS = json.loads((ZOO / "index.json").read_text())["models"]


def place(page):
    """Return the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.S | re.M)


def run_code(page):
    """Run a page's Python blocks one after another, and return the names that they leave."""
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)
    return names


# A step of `.ci/run` runs the tutorials.
RUN = [page for page in PAGES[1:] if page.parent.name != "tutorials"]


@pytest.mark.parametrize("page", RUN, ids=place)
def test_the_code_of_a_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_code(page)


def test_the_net_of_the_readme_has_an_adaptive_depth(capsys):
    names = run_code(PAGES[0])
    assert names["accuracy"] >= 0.9
    assert np.all(names["updates"] < 50)
    assert len(np.unique(names["updates"])) >= 3
    # The images were held out, and these are their figures.
    assert len(names["updates"]) == len(names["images"]) - 1437
    pattern = r"accuracy ([\d.]+)%; (\d+) to (\d+) updates"
    printed, written = (
        np.array(re.search(pattern, text).groups(), float)
        for text in (capsys.readouterr().out, blocks(PAGES[0], "text")[0])
    )
    # Another processor rounds otherwise.
    assert np.all(np.abs(printed - written) <= [4, 8, 8])


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_papers_have_names_and_not_letters(page):
    """N is the size of a batch, and L a Lipschitz bound."""
    letter = r"\b[NL]('s\b| (gives|adds)\b|, (Theorem|Banach|Eq|Fig))"
    assert not re.search(letter, page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_no_gap_is_left_open(page):
    assert not re.search(r"@[A-Z_]+@|TODO|TBD", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        # Pages that only the site has are checked when it is built, with all anchors.
        if not target.startswith("http") and Path(target).name not in GENERATED:
            assert (page.parent / target).exists(), target


def test_every_option_and_preset_that_is_named_exists():
    text = "".join(page.read_text() for page in PAGES)
    names = ("fit.py", "launch.py", "reproduce/__main__.py")
    commands = [ROOT / "training" / name for name in names]
    commands += (ROOT / "export" / name for name in ("publish.py", "predict.py", "demo.py"))
    commands += (ROOT / "benchmarks").glob("*.py")
    source = "".join(path.read_text() for path in commands)
    slurm = {"nodes", "ntasks-per-node", "gpus-per-task", "kill-on-bad-exit", "distribution"}
    options = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)) - {"help", *slurm}
    # An option is an argument's name, or is spelt out.
    missing = {
        name
        for name in options
        if not re.search(rf"\b{name.replace('-', '_')}:|--{name}\b", source)
    }
    assert not missing
    assert set(PRESETS) <= set(re.findall(r"`([\w-]+)`", (ROOT / "docs/training.md").read_text()))


def options(command):
    """Return the options of a training, whatever the name by which it calls the architecture."""
    words = shlex.split(command.removeprefix("python -m training.fit"))
    return [FORMER_NAMES.get(word, word) for word in words]


def published_accuracy(command):
    """Return the test accuracy in the zoo's index of the model that a command has trained."""
    (entry,) = (entry for entry in MODELS.values() if options(entry["command"]) == options(command))
    return entry["result"]["test_accuracy"]


def accuracies_by_seed():
    """Return the table of `docs/training.md`: accuracies in percent and their mean, by command."""
    rows = re.findall(r"^\| `(\w+)`, (\w+) \| \d+ \| ([\d., ]+)% \| ([\d.]+)% \|", TRAINING, re.M)
    table = {}
    for model, dataset, figures, mean in rows:
        given = "" if dataset == "digits" else f" --dataset {dataset.lower()}"
        table[f"--model {model}{given}"] = (figures.split(", "), mean)
    return table


def test_accuracies_of_the_training_page_are_the_zoo_s():
    table = accuracies_by_seed()
    assert len(table) == 3
    for command, (figures, mean) in table.items():
        assert figures[0] == f"{100 * published_accuracy(command):.2f}", command
        assert float(mean) == pytest.approx(np.mean([float(f) for f in figures]), abs=0.0051)


def test_accuracies_of_the_readme_are_those_of_the_training_page():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `(--model [^`]+)` \| ([\d., ]+)% \(", text, re.M)
    rounded = {
        command: [f"{float(figure):.1f}" for figure in figures]
        for command, (figures, _) in accuracies_by_seed().items()
    }
    assert {command: figures.split(", ") for command, figures in rows} == rounded


def test_the_table_of_trained_models_is_the_zoo_s():
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+%) of [\d,]+ \| ([\d.]+)[^|]* \| ([\d.]+) MB \|$",
        (ROOT / "docs/export.md").read_text(),
        re.M,
    )
    assert sorted(name for name, *_ in rows) == sorted(MODELS)
    for name, accuracy, depth, megabytes in rows:
        entry = MODELS[name]
        assert accuracy == f"{entry['result']['test_accuracy']:.2%}", name
        assert float(depth) == pytest.approx(entry["result"]["mean_depth"], abs=0.05), name
        size = sum(facts["bytes"] for facts in entry["files"].values())
        assert float(megabytes) == pytest.approx(size / 1e6, abs=0.3), name


@pytest.mark.parametrize("name", MODELS)
def test_a_card_gives_the_accuracy_of_the_index(name):
    (card,) = (file for file in MODELS[name]["files"] if file.endswith("/README.md"))
    accuracy = MODELS[name]["result"]["test_accuracy"]
    assert f"| test accuracy | {accuracy:.2%} |" in (ZOO / card).read_text()


def spelt(value):
    """Return a setting of a preset as the table spells it."""
    if callable(value):
        return "by processor"
    if value is True:
        return "yes"
    return value if isinstance(value, str) else f"{value:g}"


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_of_presets_is_true(name):
    """It has every setting that a preset states beside its model and data set."""
    preset = dict(PRESETS[name])
    model = preset.pop("model")
    paper = "Lippl et al." if model[-4:] == "_w16" else "NAIS-Net"
    paper = "fast" if model == "nais_fast" else paper
    paper += " short" if name.endswith("-short") else ""
    dataset = preset.pop("dataset").rstrip("0123456789")
    title = {"cifar": "CIFAR", "mnist": "MNIST", "digitclutter": "Digitclutter"}[dataset]
    (table,) = re.findall(r"^\| setting \|.*\n(?:\|.*\n)+", TRAINING, re.M)
    head, _, *rows = (
        [cell.strip(" `*") for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    shared_by = "ResNet-SH" if name == "resnet-sh-mnist" else paper
    column = head.index(f"{shared_by}, {title}")
    said = {row[0].removeprefix("--").replace("-", "_"): row[column] for row in rows}
    assert {k: v for k, v in said.items() if v} == {k: spelt(v) for k, v in preset.items()}


def test_the_page_says_what_the_preset_of_nais_mnist_reaches():
    assert re.search(r"`nais-mnist` reached 9\d\.\d\d% of the test images", TRAINING)


def tables(page):
    """Return the Markdown tables of a page, each a list of rows of cells, its head first."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.M):
        head, _, *rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines())
        yield [[cell.strip() for cell in row] for row in (head, *rows)]


def named_sizes(page):
    """Return `(architecture, what is counted, figure)` of a page's tables, by row or by column.

    A column or a row that is named "parameters", "trained parameters" or "updates" counts.
    """
    found = []
    for table in tables(page):
        # Turned over, a table that names its nets in the first row names them in the first column.
        for head, *rows in (table, [*zip(*table, strict=True)]):
            for first, *cells in rows:
                if first.strip("`") in ki.list_models():
                    found += [
                        (first.strip("`"), what, int(cell.replace(",", "")))
                        for what, cell in zip(head[1:], cells, strict=True)
                        if what in ("parameters", "trained parameters", "updates")
                    ]
    return found


SIZES = {place(page): named_sizes(page) for page in PAGES}


@functools.cache
def count(name):
    """Return what a full-size net for 32x32x3 and ten classes has, each net built once."""
    model = ki.create_model(name, (32, 32, 3), 10)
    return {
        "parameters": sum(np.prod(w.shape) for w in model.weights),
        "trained parameters": sum(np.prod(w.shape) for w in model.trainable_weights),
        "updates": ki.processing_depth(model),
    }


def test_the_pages_that_compare_nets_count_them():
    listed = [name for name, what, _ in SIZES["docs/named_nets.md"] if what == "parameters"]
    assert listed == ki.list_models()
    compared = {name for name, what, _ in SIZES["docs/cifar10.md"] if what == "parameters"}
    assert compared == {"nais1", "nais10", "resnet54", "resnet54_plain", "resnet54_wide"}


@pytest.mark.parametrize("page", [page for page, sizes in SIZES.items() if sizes])
def test_the_sizes_that_a_page_gives_are_true(page):
    for name, what, figure in SIZES[page]:
        assert figure == count(name)[what], (name, what)


def test_the_claims_of_lippl_et_al_are_judged_by_the_page_s_own_table():
    text = (ROOT / "docs/iteration.md").read_text()
    (claims,) = re.findall(
        r"^What these numbers say to the claims of Lippl et al.*?\n\n((?:- .*\n(?:  .*\n)*)+)",
        text,
        re.M,
    )
    judged = re.findall(r"^- \*([^*]+)\*:", claims, re.M)
    for what in ("CI", "RI", "DI", "accuracy", "sharing costs capped nets none"):
        assert any(what in claim for claim in judged), what
    (table,) = (table for table in tables(ROOT / "docs/iteration.md") if "condition" in table[0])
    cells = " ".join(cell for row in table for cell in row)
    # Each mean with three decimals that a claim names; a sign marks a difference of two.
    columns = [[cell.split()[0] for cell in column[1:]] for column in zip(*table, strict=True)]
    means = [[float(mean) for mean in column if "." in mean[:2]] for column in columns[2:]]
    differences = {f"{a - b:+.3f}" for column in means for a in column for b in column}
    for sign, figure in re.findall(r"([+-]?)(\d\.\d{3})", claims):
        if figure != "0.009":  # The largest DI of a single run.
            assert sign + figure in (differences if sign else cells), sign + figure


def test_the_readme_says_where_which_python_and_how_long():
    start = (ROOT / "README.md").read_text().split("## Try it")[1].split("\n## ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", project["requires-python"]))
    versions = [f"3.{minor}" for minor in range(low, high)]
    assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in start
    assert "clone this repository" in start
    assert re.search(r"tests \(about \d+ minutes", start)


def test_the_badges_and_the_citation_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", project["requires-python"]))
    needed = dict(
        re.findall(r"^(keras|tensorflow)>=([\d.]+)", "\n".join(project["dependencies"]), re.M)
    )
    expected = {
        "python": f"3.{low} to 3.{high - 1}",
        "keras": f"{needed['keras']} on TensorFlow {needed['tensorflow']}",
        "license": project["license"],
    }
    readme = (ROOT / "README.md").read_text()
    for name, text in expected.items():
        badge = f"docs/assets/badges/{name}.svg"
        assert f">{text}</text>" in (ROOT / badge).read_text()
        assert badge in readme
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ki.__version__}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    for paper in re.findall(r"\]\((https://(?:arxiv|doi)\.org/[^)\s]+)\)", readme):
        assert paper.removeprefix("https://doi.org/") in citation
