"""Running an experiment: its cases one after another, each result kept as soon as it is there."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from rich.console import Console

from iterconv.command_errors import UserError
from keras_iterconv._support.files import FileError, read_text, replacing
from keras_iterconv._support.locking import LockedError, locked

from .experiment import Case, Experiment, Results, Row

ROW = {
    "type": "object",
    "properties": {
        "condition": {"type": "string"},
        "seed": {"type": "integer", "minimum": 0},
        "settings": {"type": "object"},
        "measures": {"type": "object"},
        "seconds": {"type": "number", "minimum": 0},
    },
    "required": ["condition", "seed", "settings", "measures", "seconds"],
    "additionalProperties": False,
}


def run_experiment(
    experiment: Experiment,
    folder: Path,
    scale: str,
    console: Console,
    seeds: int | None = None,
    others: Sequence[Experiment] = (),
) -> Results:
    """Compute all cases of an experiment that have no result yet, and return all results.

    Where another experiment has measured the same settings in the same way, its measures are taken.

    Args:
        experiment: The experiment.
        folder: The folder of all experiments of one scale: results lie in `NAME.jsonl`, a line for
            each case, and the trainings in `trainings/`, which the experiments share.
        scale: One of `SCALES`.
        console: The console for the progress.
        seeds: The number of seeds; None for that of the experiment.
        others: The other experiments.

    Raises:
        UserError: Another process runs the experiment, or its file of results is damaged.
    """
    (folder / "trainings").mkdir(parents=True, exist_ok=True)
    file = folder / f"{experiment.name}.jsonl"
    try:
        with locked(folder / f".{experiment.name}.lock", wait=False):
            lines = _read_lines(file)
            cases = experiment.cases(scale, seeds)
            for case, line in _measured_by(others, experiment, folder, cases):
                if key_of(case) not in lines:
                    lines[key_of(case)] = {**line, "condition": case.condition}
                    _write_lines(file, list(lines.values()))
            missing = [case for case in cases if key_of(case) not in lines]
            for number, case in enumerate(missing, start=1):
                console.print(
                    f"{experiment.name}, {case.condition}, seed {case.seed}: "
                    f"{number} of {len(missing)}{_remaining(lines, missing[number - 1 :])}",
                    soft_wrap=True,
                )
                begin = time.perf_counter()
                measures = experiment.compute(case, folder / "trainings", console)
                lines[key_of(case)] = {
                    "condition": case.condition,
                    "seed": case.seed,
                    "settings": dict(case.settings),
                    "measures": measures,
                    "seconds": round(time.perf_counter() - begin, 3),
                }
                _write_lines(file, list(lines.values()))
    except LockedError as error:
        raise UserError(f"{experiment.name} is being run in {folder} by another process") from error
    return to_results(_of_cases(lines, cases))


def _measured_by(
    others: Sequence[Experiment], experiment: Experiment, folder: Path, cases: Sequence[Case]
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Yield the cases that another experiment has measured, and its line for each."""
    found = {
        _key("", line["settings"], line["seed"]): line
        for other in others
        if other.compute is experiment.compute and other.name != experiment.name
        for line in _read_lines(folder / f"{other.name}.jsonl").values()
    }
    for case in cases:
        key = _key("", case.settings, case.seed)
        if key in found:
            yield case, found[key]


def read_lines(
    experiment: Experiment, folder: Path, scale: str, seeds: int | None = None
) -> list[dict[str, Any]]:
    """Return the lines of results that exist of an experiment, in the order of its cases.

    Lines of cases that the experiment no longer has are left out.

    Args:
        experiment: The experiment.
        folder: The folder of all experiments of one scale.
        scale: One of `SCALES`.
        seeds: The number of seeds; None for all that have a result.

    Returns:
        Objects as `ROW` describes them.

    Raises:
        UserError: Its file of results is damaged.
    """
    lines = _read_lines(folder / f"{experiment.name}.jsonl")
    if seeds is None:
        seeds = 1 + max((line["seed"] for line in lines.values()), default=0)
    return _of_cases(lines, experiment.cases(scale, seeds))


def to_results(lines: Sequence[Mapping[str, Any]]) -> Results:
    """Return the results that some lines hold."""
    return Results([Row(line["condition"], line["seed"], line["measures"]) for line in lines])


def key_of(case: Case) -> str:
    """Return a name of a case that differs where its settings or its seed do."""
    return _key(case.condition, case.settings, case.seed)


def _key(condition: str, settings: Mapping[str, Any], seed: int) -> str:
    text = json.dumps([condition, dict(settings), seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _of_cases(lines: Mapping[str, dict[str, Any]], cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [lines[key_of(case)] for case in cases if key_of(case) in lines]


def _read_lines(file: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a file of results by the keys of their cases; empty without a file."""
    if not file.exists():
        return {}
    try:
        texts = read_text(file).splitlines()
    except FileError as error:
        raise UserError(str(error)) from error
    lines = {}
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            jsonschema.validate(line, ROW)
        except (ValueError, RecursionError, jsonschema.ValidationError) as error:
            raise UserError(
                f"{file} is damaged in line {number}; remove that line, and its case is computed "
                "again"
            ) from error
        lines[key_of(Case(line["condition"], line["settings"], line["seed"]))] = line
    return lines


def _write_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    try:
        with replacing(file) as partial:
            partial.write_text(as_text(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def as_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a file of results: a JSON object a line."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _remaining(lines: dict[str, dict[str, Any]], cases: Sequence[Case]) -> str:
    """Return the time that some cases will take, as text; empty before the first result.

    A case takes as long as the others of its condition did, or as the mean of all.
    """
    if not lines:
        return ""
    seconds: dict[str, list[float]] = {}
    for line in lines.values():
        seconds.setdefault(line["condition"], []).append(line["seconds"])
    means = {condition: sum(values) / len(values) for condition, values in seconds.items()}
    overall = sum(means.values()) / len(means)
    minutes = sum(means.get(case.condition, overall) for case in cases) / 60
    return f", about {minutes:.0f} minutes left"
