"""Running an experiment: what is kept, what is computed again, and what survives a kill."""

import dataclasses
import io
import json
import os
import signal
from pathlib import Path

import pytest
import typer
from rich.console import Console

from iterconv.command_errors import UserError
from tests.support.processes import call_in_processes
from training.reproduce import runner
from training.reproduce.__main__ import app
from training.reproduce.experiment import Case, Experiment
from training.reproduce.runner import read_lines, run_experiment, to_results

CONDITIONS = {"small": {"size": 2}, "large": {"size": 5}}


def make_experiment(compute, conditions=None):
    return Experiment(
        name="squares",
        title="Squares",
        source="nobody, Fig. 1",
        conditions=lambda scale: CONDITIONS if conditions is None else conditions,
        seeds={"cpu": 3, "paper": 10},
        compute=compute,
        claims=(),
        draw=lambda path, results: None,
        reduced="nothing",
    )


def square(case, folder, console):
    return {"value": case.settings["size"] ** 2 + case.seed}


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def test_all_cases_are_computed_seed_by_seed(tmp_path, console):
    seen = []

    def compute(case, folder, console):
        seen.append((case.seed, case.condition))
        assert folder.is_dir()
        return square(case, folder, console)

    results = run_experiment(make_experiment(compute), tmp_path, "cpu", console)
    assert seen == [(seed, name) for seed in range(3) for name in CONDITIONS]
    assert results.values("small", "value").tolist() == [4, 5, 6]
    assert results.by_seed("large", "value") == {0: 25, 1: 26, 2: 27}
    assert results.conditions == ["small", "large"]
    lines = [json.loads(line) for line in (tmp_path / "squares.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 0, 1, 1, 2, 2]
    assert "6 of 6" in console.file.getvalue()


def test_what_is_there_is_not_computed_again(tmp_path, console):
    run_experiment(make_experiment(square), tmp_path, "cpu", console, seeds=2)

    def only_new(case, folder, console):
        assert case.seed == 2
        return square(case, folder, console)

    results = run_experiment(make_experiment(only_new), tmp_path, "cpu", console)
    assert results.values("large", "value").tolist() == [25, 26, 27]
    # Fewer seeds than there are results: the others are left out, and kept in the file.
    one = to_results(read_lines(make_experiment(square), tmp_path, "cpu", seeds=1))
    assert one.values("large", "value").tolist() == [25]
    assert len((tmp_path / "squares.jsonl").read_text().splitlines()) == 6


def test_what_another_experiment_measured_in_the_same_way_is_taken(tmp_path, console):
    first = dataclasses.replace(make_experiment(square), name="first")
    run_experiment(first, tmp_path, "cpu", console, seeds=2)
    seen = []

    def compute(case, folder, console):
        seen.append((case.condition, case.seed))
        return square(case, folder, console)

    conditions = {"another name": {"size": 5}, "new": {"size": 7}}
    # The same function, and settings of which one is new.
    second = make_experiment(square, conditions)
    results = run_experiment(second, tmp_path, "cpu", console, seeds=2, others=[first, second])
    assert results.values("another name", "value").tolist() == [25, 26]
    assert len((tmp_path / "squares.jsonl").read_text().splitlines()) == 4
    # Another function measures for itself.
    third = dataclasses.replace(make_experiment(compute, conditions), name="third")
    run_experiment(third, tmp_path, "cpu", console, seeds=1, others=[first, second, third])
    assert seen == [("another name", 0), ("new", 0)]
    # Nothing is left to compute, and the file is written all the same.
    fourth = dataclasses.replace(make_experiment(square, conditions), name="fourth")
    run_experiment(fourth, tmp_path, "cpu", console, seeds=1, others=[second])
    assert len((tmp_path / "fourth.jsonl").read_text().splitlines()) == 2


def test_a_changed_setting_is_another_case(tmp_path, console):
    run_experiment(make_experiment(square), tmp_path, "cpu", console, seeds=1)
    changed = make_experiment(square, {"small": {"size": 3}})
    assert to_results(read_lines(changed, tmp_path, "cpu")).rows == []
    results = run_experiment(changed, tmp_path, "cpu", console, seeds=1)
    assert results.values("small", "value").tolist() == [9]


def test_a_failure_keeps_what_was_computed(tmp_path, console):
    def fail(case, folder, console):
        if case.seed == 1:
            raise UserError("no more")
        return square(case, folder, console)

    with pytest.raises(UserError, match="no more"):
        run_experiment(make_experiment(fail), tmp_path, "cpu", console)
    found = to_results(read_lines(make_experiment(square), tmp_path, "cpu"))
    assert [row.seed for row in found.rows] == [0, 0]


def run_until_killed(folder, moment):
    """Run the experiment in a process of its own, which is killed at a moment."""
    steps = iter(range(100))

    def maybe_die():
        if next(steps) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def compute(case, folder, console):
        maybe_die()
        return square(case, folder, console)

    whole = runner.replacing

    def replacing(file):
        maybe_die()
        return whole(file)

    runner.replacing = replacing
    run_experiment(make_experiment(compute), Path(folder), "cpu", Console(file=io.StringIO()))


def test_a_killed_run_ends_with_the_results_of_one_that_was_not(tmp_path, console):
    whole = run_experiment(make_experiment(square), tmp_path / "whole", "cpu", console)
    moments = [0, 1, 2, 5, 11]
    calls = [(str(tmp_path / str(moment)), moment) for moment in moments]
    assert call_in_processes(run_until_killed, calls) == [-signal.SIGKILL] * len(moments)
    for moment in moments:
        again = run_experiment(make_experiment(square), tmp_path / str(moment), "cpu", console)
        assert again.rows == whole.rows


@pytest.mark.parametrize("line", ["{", "[]", '{"condition": "small"}', "[" * 10_000, "NaN"])
def test_a_damaged_line_is_named(tmp_path, console, line):
    run_experiment(make_experiment(square), tmp_path, "cpu", console, seeds=1)
    file = tmp_path / "squares.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"damaged in line 3; remove that line"):
        run_experiment(make_experiment(square), tmp_path, "cpu", console)


def test_two_processes_do_not_run_one_experiment(tmp_path, console):
    def again(case, folder, console):
        with pytest.raises(UserError, match="by another process"):
            run_experiment(make_experiment(square), tmp_path, "cpu", console)
        return square(case, folder, console)

    run_experiment(make_experiment(again), tmp_path, "cpu", console, seeds=1)


def test_the_remaining_time_follows_the_condition():
    lines = {
        name: {"condition": name, "seconds": seconds}
        for name, seconds in (("small", 60.0), ("large", 600.0))
    }
    cases = [Case("large", {}, 1), Case("small", {}, 1), Case("new", {}, 1)]
    # 10 + 1 + the mean of both.
    assert runner._remaining(lines, cases) == ", about 16 minutes left"
    assert runner._remaining({}, cases) == ""


def test_the_command_lists_and_refuses(capsys):
    assert _main(["list"]) is None
    assert "coupling" in capsys.readouterr().out
    for arguments, message in (
        (["run", "couplin"], "NAME"),
        (["run", "coupling", "--scale", "huge"], "--scale must be one of cpu, paper: huge"),
        (["run", "coupling", "--seeds", "0"], "--seeds must be from 1 to 100: 0"),
    ):
        with pytest.raises(UserError, match=message):
            _main(arguments)


def _main(arguments):
    return typer.main.get_command(app)(arguments, standalone_mode=False)
