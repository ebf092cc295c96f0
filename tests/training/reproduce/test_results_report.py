"""The report of all results: what the pages hold, that they stand alone, and what is refused."""

import dataclasses
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from iterconv.command_errors import UserError
from keras_iterconv import datasets
from keras_iterconv.datasets.digitclutter import draw_picture, lay_out
from training.reproduce import __main__ as reproduce
from training.reproduce import catalogue_of_experiments as catalogue
from training.reproduce import findings as findings_module
from training.reproduce import results_report, sample_images
from training.reproduce.experiment import Claim, Experiment, Outcome, Verdict
from training.reproduce.findings import PENDING, Finding, count_outcomes, find_all
from training.reproduce.results_report import write_report
from training.reproduce.runner import run_experiment

CONDITIONS = {"small": {"size": 2, "dataset": "digits"}, "large": {"size": 5, "dataset": "digits"}}


def square(case, folder, console):
    return {"value": case.settings["size"] ** 2 + case.seed}


def judge_growth(results):
    small, large = (results.values(name, "value") for name in CONDITIONS)
    return Verdict(
        Outcome.AGREES if large[0] > small[0] else Outcome.DIFFERS, "first; a|b <i>x</i> [1](x)"
    )


def draw(path, results):
    value = results.values("large", "value")[0]
    Image.new("RGB", (40, 20), (int(value), 0, 0)).save(path)


CLAIMS = (
    Claim("Large nets are larger & <b>better</b>.", "nobody, Fig. 1", "By eye.", judge_growth),
    Claim("They are equal.", "nobody | Fig. 2", "x*y", lambda r: Verdict(Outcome.DIFFERS, "no")),
)
SQUARES = Experiment(
    name="squares",
    title="Squares of sizes",
    source="nobody, Fig. 1",
    conditions=lambda scale: CONDITIONS,
    seeds={"cpu": 3, "paper": 10},
    compute=square,
    claims=CLAIMS,
    draw=draw,
    reduced="Small sizes.",
)
CUBES = dataclasses.replace(
    SQUARES, name="cubes", title="Cubes", claims=(dataclasses.replace(CLAIMS[1], text="Cubic."),)
)


class Page(html.parser.HTMLParser):
    """The elements of a page, its text, and the elements that were left open."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f"{data} "


@pytest.fixture
def folder(tmp_path):
    """Return the folder of the results of `squares`; the documents are in `docs` beside it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "reproduction.md").write_text("")
    run_experiment(SQUARES, tmp_path / "cpu", "cpu", Console(file=io.StringIO()), seeds=2)
    return tmp_path / "cpu"


def write(folder, experiments=(SQUARES, CUBES)):
    findings = find_all(experiments, folder, "cpu")
    write_report(findings, folder / "report.html", folder.parent / "docs")
    markdown = (folder.parent / "docs" / "results.md").read_text()
    return findings, (folder / "report.html").read_text(), markdown


def flat(text):
    return " ".join(text.split())


def test_the_page_holds_every_claim_and_no_reference_outside(folder):
    _, source, _ = write(folder)
    page = Page(source)
    assert page.open == []
    text = flat(page.text)
    for claim in (*SQUARES.claims, *CUBES.claims):
        assert claim.text in text
        assert f"{claim.rule}" in text
    assert "first a|b <i>x</i>" in text
    assert "python -m training.reproduce run squares --scale cpu --seeds 2" in text
    assert "python -m training.reproduce run squares --scale paper" in text
    assert "Small sizes." in text
    assert "http" not in source
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any(tag == "script" for tag, _ in page.elements)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids


def test_the_markdown_holds_every_claim_in_tables_that_are_whole(folder):
    _, _, text = write(folder)
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5, 6)
    assert "Large nets are larger & \\<b>better\\</b>." in text
    assert "nobody \\| Fig. 2" in text
    assert "x\\*y" in text
    docs = folder.parent / "docs"
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert {"results/squares.png", "results/squares.jsonl", "#cubes"} < set(links)
    for link in links:
        if link.startswith("#"):
            assert f"\n## {link[1:]}\n" in text
        else:
            assert (docs / link).is_file()
    assert "`python -m training.reproduce run cubes --scale cpu` makes them" in text


def test_outcomes_are_counted_and_those_without_results_are_named(folder):
    findings, _, _ = write(folder)
    assert count_outcomes(findings) == {
        "agrees": 1,
        "differs": 1,
        "not decidable at this scale": 0,
        PENDING: 1,
    }
    squares = findings[0]
    assert (squares.seeds, squares.missing) == ("2 seeds", 0)


@pytest.mark.parametrize(
    ("seeds", "flag", "text", "missing"),
    [
        ((0, 1, 2), "", "3 seeds", 0),
        ((0,), " --seeds 1", "one seed", 0),
        ((0, 2), "", "2 seeds", 2),
        ((0, 1, 2, 3), " --seeds 4", "4 seeds", 0),
    ],
)
def test_the_command_is_the_one_that_makes_the_results(seeds, flag, text, missing):
    lines = [
        {"condition": name, "seed": seed, "settings": settings, "measures": {}, "seconds": 1800}
        for seed in seeds
        for name, settings in CONDITIONS.items()
    ]
    found = Finding(SQUARES, "cpu", lines, ())
    assert found.command == f"python -m training.reproduce run squares --scale cpu{flag}"
    assert (found.seeds, found.missing) == (text, missing)
    assert found.duration == f"{len(seeds)} h 0 min"


def test_conditions_that_no_seed_changes_do_not_count_as_seeds():
    lines = [
        {"condition": name, "seed": seed, "settings": {}, "measures": {}, "seconds": 0}
        for name, seed in (("small", 0), ("small", 1), ("large", 0), ("zoo", 0))
    ]
    single = dataclasses.replace(SQUARES, single=lambda scale: {"zoo": {}})
    assert Finding(single, "cpu", lines, ()).seeds == "1 to 2 seeds"
    assert Finding(single, "cpu", lines, ()).missing == 1
    assert Finding(single, "cpu", lines[-1:], ()).seeds == "deterministic"


def test_raw_numbers_are_copied(folder):
    write(folder)
    copied = (folder.parent / "docs/results/squares.jsonl").read_text().splitlines()
    values = [json.loads(line)["measures"]["value"] for line in copied]
    assert values == [4, 25, 5, 26]


def test_equal_results_give_equal_files(folder):
    def read():
        files = [folder / "report.html", *sorted((folder.parent / "docs").rglob("*"))]
        return {file.name: file.read_bytes() for file in files if file.is_file()}

    write(folder)
    first = read()
    write(folder)
    assert read() == first
    assert len(first) == 6
    for content in first.values():
        assert str(folder.parent).encode() not in content


def test_missing_cases_leave_claims_undecided(folder):
    file = folder / "squares.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"small"' in line))
    (squares, _), source, text = write(folder)
    assert [claim.outcome for claim in squares.claims] == [
        Outcome.UNDECIDABLE.value,
        Outcome.DIFFERS.value,
    ]
    assert "2 of its cases have no result yet" in source
    assert "2 of its cases have no result yet" in text
    assert "squares.png" not in text


def test_an_error_of_a_rule_is_not_hidden_where_all_results_are_there(folder):
    broken = dataclasses.replace(SQUARES, claims=(Claim("", "", "", lambda r: r.rows[99]),))
    with pytest.raises(IndexError):
        find_all([broken], folder, "cpu")
    unable = dataclasses.replace(SQUARES, draw=lambda path, results: results.rows[99])
    with pytest.raises(IndexError):
        write(folder, [unable])


def test_a_data_set_that_is_not_here_is_named(folder, monkeypatch):
    def missing(path, dataset):
        raise datasets.DatasetNotFoundError("nowhere")

    monkeypatch.setattr(results_report, "write_samples", missing)
    _, source, text = write(folder)
    assert "digits was not on the machine that made this page" in source
    assert "`digits` was not on the machine that made this page" in text


def test_a_full_disk_keeps_the_old_page(folder, monkeypatch):
    write(folder)
    page = (folder / "report.html").read_bytes()

    def full(path, text):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results_report, "_write_text", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        write(folder)
    assert (folder / "report.html").read_bytes() == page


@pytest.mark.parametrize("dataset", ["digits", "digitclutter3"])
def test_samples_are_the_first_images_of_the_test_part(tmp_path, dataset):
    sample_images.write_samples(tmp_path / "s.png", dataset)
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image)
    side, step = sample_images.SIDE, sample_images.SIDE + sample_images.GAP
    first = pixels[:, step : step + side, 0]
    if dataset == "digits":
        expected = datasets.load("digits").test.images[1, ..., 0] * (255 / 16)
        np.testing.assert_allclose(first[6::12, 6::12], expected, atol=1)
    else:
        expected = draw_picture(*lay_out(0, 3, "test", 1))[..., 0]
        np.testing.assert_array_equal(first[1::3, 1::3], expected)
    assert pixels.shape == (side, step * sample_images.COUNT - sample_images.GAP, 3)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Return a function that runs `report` with the made-up experiments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "NAMES", ("squares", "cubes"))
    monkeypatch.setattr(
        catalogue, "find_experiment", lambda name: {"squares": SQUARES, "cubes": CUBES}[name]
    )

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["reproduce", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            reproduce.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def test_the_command_writes_both_pages(command, folder):
    code, out, err = command("--output", folder.parent, "--docs", folder.parent / "docs")
    assert (code, err) == (0, "")
    assert "agrees: 1" in out
    assert (folder / "report.html").is_file()
    assert (folder.parent / "docs" / "results.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scale", "huge"), "--scale must be one of cpu, paper: huge"),
        (("--output", ""), "--output must name a folder"),
        (("--docs", "nowhere"), "--docs must be a folder that exists: 'nowhere'"),
        (("--docs", "."), "holds no results; `python -m training.reproduce run NAME` makes them"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command, tmp_path, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkout_a_folder_must_be_named(command, monkeypatch, tmp_path):
    monkeypatch.setattr(results_report, "DOCUMENTS", tmp_path / "docs")
    code, _, err = command()
    assert (code, err) == (
        2,
        "Error: --docs must name a folder: this installation is not in a checkout\n",
    )
    assert results_report.DOCUMENTS.parent == tmp_path


def test_a_damaged_file_is_named(command, folder):
    with (folder / "squares.jsonl").open("a") as file:
        file.write("{\n")
    code, _, err = command("--output", folder.parent, "--docs", folder.parent / "docs")
    assert code == 2
    assert "squares.jsonl is damaged in line 5" in err


def test_every_experiment_is_pending_without_results(tmp_path):
    """The claims of the catalogue's experiments, with no file of any."""
    experiments = [catalogue.find_experiment(name) for name in catalogue.NAMES]
    for experiment in experiments:
        finding = findings_module.find(experiment, tmp_path, "cpu")
        assert {claim.outcome for claim in finding.claims} == {PENDING}
        assert experiment.seeds.keys() == {"cpu", "paper"}
