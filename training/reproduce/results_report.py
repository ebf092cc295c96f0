"""The report of all results: a page of HTML, and `results.md` with its pictures and raw numbers."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from iterconv.command_errors import UserError
from keras_iterconv._support.files import replacing
from keras_iterconv.datasets import DatasetError

from .findings import INCOMPLETE, PENDING, Finding, count_outcomes
from .runner import as_text
from .sample_images import write_samples

TEMPLATES = Path(__file__).parent / "templates"
# The checkout's folder of documents; an installed package has none.
DOCUMENTS = Path(__file__).parents[2] / "docs"
# Beside `results.md`, and the name by which it links there.
FOLDER = "results"


def find_documents(docs: str | None) -> Path:
    """Return the folder for `results.md`: the one that is given, or the checkout's.

    Raises:
        UserError: It is no folder, or none is given and there is no checkout.
    """
    if docs is None:
        if not (DOCUMENTS.parent / "pyproject.toml").is_file() or not DOCUMENTS.is_dir():
            raise UserError("--docs must name a folder: this installation is not in a checkout")
        return DOCUMENTS
    if not docs or not Path(docs).is_dir():
        raise UserError(f"--docs must be a folder that exists: {docs!r}")
    return Path(docs)


def write_report(findings: Sequence[Finding], page: Path, docs: Path) -> None:
    """Write the page, `results.md`, and the folder `results` beside it.

    Every file is written completely or not at all. The same results give the same files.

    Args:
        findings: What the results of each experiment say.
        page: The HTML file, which needs no other file.
        docs: The folder for `results.md`.

    Raises:
        UserError: A file cannot be written.
    """
    folder = docs / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    for finding in findings:
        if finding.lines:
            _write(folder / f"{finding.experiment.name}.jsonl", _write_text, as_text(finding.lines))
    content = {
        "findings": findings,
        "counts": count_outcomes(findings),
        "pending": PENDING,
        "figures": {f.experiment.name: _draw(f, folder) for f in findings if f.lines},
        "samples": _write_all_samples(findings, folder),
    }
    _write(docs / "results.md", _write_text, _render("results.md.j2", content, folder))
    _write(page, _write_text, _render("report.html.j2", content, folder))


def _draw(finding: Finding, folder: Path) -> str | None:
    """Draw the figure of an experiment, and return its file's name; None with too few results."""
    file = folder / f"{finding.experiment.name}.png"
    try:
        _write(file, finding.experiment.draw, finding.results)
    except INCOMPLETE:
        if not finding.missing:
            raise
        return None
    return file.name


def _write_all_samples(findings: Sequence[Finding], folder: Path) -> dict[str, str | None]:
    """Write pictures of all data sets, and return their files' names; None for one not here."""
    samples: dict[str, str | None] = {}
    for dataset in dict.fromkeys(name for finding in findings for name in finding.datasets):
        file = folder / f"samples-{dataset}.png"
        try:
            _write(file, write_samples, dataset)
            samples[dataset] = file.name
        except DatasetError:
            samples[dataset] = None
    return samples


def _write(file: Path, write: Callable[[Path, Any], None], content: Any) -> None:
    try:
        with replacing(file) as partial:
            write(partial, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _render(template: str, content: dict[str, Any], folder: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def embed(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()

    environment.filters.update(cell=_as_cell, embed=embed)
    return environment.get_template(template).render(content)


def _as_cell(text: str) -> str:
    """Return text that a table of Markdown shows as it is."""
    for special in "\\`*|<":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.replace("](", "]\\(").split())
