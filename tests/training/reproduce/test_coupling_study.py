"""The comparison of conditions: what is trained, what is kept, and what is summed up."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from iterconv.command_errors import UserError
from training.reproduce import coupling_study as coupling

CONDITIONS = (
    coupling.Condition("resnet_w8", None),
    # No capped net: a cap is converged before each checkpoint, and says nothing here.
    coupling.Condition("resnet_w8", 0.9),
)
SETTINGS = {"dataset": "digits", "limit_train": 64, "blocks": 2, "epochs": 1, "batch_size": 32}


def test_the_comparison_is_the_one_that_was_asked_for():
    names = [condition.name for condition in coupling.CONDITIONS]
    assert names == [
        "resnet_w8-independent", "resnet_w8-coupled-0", "resnet_w8-coupled-0.5",
        "resnet_w8-coupled-0.9", "resnet_w8-coupled-1", "icr_w8-coupled-0", "icr_w8-coupled-0.9",
        "pcr_w8-coupled-0", "pcr_w8-coupled-0.9",
    ]  # fmt: skip
    assert coupling.SETTINGS["dataset"] == "mnist"


@pytest.fixture
def console():
    return Console(record=True, width=200, file=io.StringIO())


def test_runs_are_trained_once_and_summed_up(console, tmp_path):
    coupling.train_all(tmp_path, range(2), console, CONDITIONS, SETTINGS)
    files = {run: (run / "result.json").read_bytes() for run in tmp_path.iterdir()}
    assert {run.name for run in files} == {
        f"{condition.name}-{seed}" for condition in CONDITIONS for seed in range(2)
    }
    # As version 0.1.0 wrote it, which knew no such settings.
    file = tmp_path / "resnet_w8-coupled-0.9-1" / "config.json"
    config = json.loads(file.read_text())
    for name in ("clip_norm", "pixels", "validation_share"):
        del config["settings"][name]
    file.write_text(json.dumps(config))
    coupling.train_all(tmp_path, range(2), console, CONDITIONS, SETTINGS)
    assert files == {run: (run / "result.json").read_bytes() for run in tmp_path.iterdir()}

    results = coupling.read_results(tmp_path, range(2), CONDITIONS)
    assert [len(runs) for runs in results.values()] == [2, 2]
    coupling.draw(tmp_path / "figure.png", results)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    config = json.loads((tmp_path / "resnet_w8-coupled-0.9-1" / "config.json").read_text())
    assert config["settings"]["seed"] == 1

    with pytest.raises(UserError, match=r"independent-0 was trained with epochs=1, not 2; name"):
        coupling.train_all(tmp_path, [0], console, CONDITIONS, {**SETTINGS, "epochs": 2})


def result(accuracy, *values):
    names = ("convergence", "recurrence", "divergence")
    return {
        "test_accuracy": accuracy,
        "indices": {"mean": dict(zip(names, values, strict=True))},
    }


def test_means_and_spreads():
    runs = [result(0.9, 0.5, 1.0, 0.0), result(0.8, 0.7, None, 0.25), result(0.7, 0.9, 2.0, 0.5)]
    (row,) = coupling.summarise({CONDITIONS[0]: runs})
    assert row["runs"] == 3
    assert row["error"] == pytest.approx((0.2, 0.1, 3))
    assert row["convergence"] == pytest.approx((0.7, 0.2, 3))
    assert row["recurrence"] == pytest.approx((1.5, np.std([1, 2], ddof=1), 2))
    text = io.StringIO()
    Console(file=text, width=120).print(coupling.make_table([row]))
    assert "20.00% (10.00%)" in text.getvalue()
    assert "0.250 (0.250)" in text.getvalue()
    assert "1.500 (0.707, of 2)" in text.getvalue()
    (single,) = coupling.summarise({CONDITIONS[0]: [result(0.9, None, 1.0, 0.0)]})
    assert math.isnan(single["convergence"][0])
    assert math.isnan(single["error"][1])
    text = io.StringIO()
    Console(file=text, width=120).print(coupling.make_table([single]))
    assert "undefined" in text.getvalue()


def test_a_number_of_seeds_out_of_range_is_refused(monkeypatch, capsys):
    from training.reproduce.__main__ import main

    monkeypatch.setattr("sys.argv", ["reproduce", "coupling", "--seeds", "0"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "Error: --seeds must be from 1 to 100: 0\n"
