"""Runs that version 0.1.0 wrote, kept as files: they load, and go on as that version went on.

`tests/data/runs_of_0.1.0` holds two runs that were interrupted after two of three epochs.
`EXPECTED` is what version 0.1.0 measured in the third epoch of the same runs without interruption.
"""

import io
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.models import registry
from training import session
from training.run_folder import RunFolder

pytestmark = pytest.mark.graph_optimizer
RUNS = Path(__file__).parents[1] / "data" / "runs_of_0.1.0"
# The nets are smaller than those of their names.
SMALL = {
    "nais_adaptive": {"blocks": 1, "filters": (4,)},
    "pcr_w8": {"blocks": 2, "width": 2},
}
EXPECTED = {
    "nais_adaptive": {
        "loss": 2.2836787700653076,
        "val_loss": 2.2951059341430664,
        "mean_depth": 3.216666666666667,
    },
    "pcr_w8": {"loss": 2.3250620365142822, "val_loss": 2.2520227432250977, "mean_depth": 6.0},
}


@pytest.fixture(params=SMALL)
def run(request, tmp_path, monkeypatch):
    """Return a copy of a kept run, whose name stands for a small net."""
    name = request.param
    entry = registry.ARCHITECTURES[name]
    small = entry._replace(settings={**entry.settings, **SMALL[name]})
    monkeypatch.setitem(registry.ARCHITECTURES, name, small)
    return Path(shutil.copytree(RUNS / name, tmp_path / name))


def test_it_goes_on_as_the_version_that_wrote_it(run):
    result = session.resume(run, Console(file=io.StringIO()))
    last = RunFolder(run).read_history(3)[-1]
    expected = EXPECTED[run.name]
    # Another machine rounds otherwise.
    for name in ("loss", "val_loss"):
        assert last[name] == pytest.approx(expected[name], rel=1e-4), name
    assert result["mean_depth"] == pytest.approx(expected["mean_depth"], abs=0.05)


def test_its_model_loads_without_the_commands(run):
    """Its validation loss is that in the kept history."""
    model = keras.models.load_model(run / "last.keras")
    assert type(model) is ki.IterativeModel
    data = datasets.load("digits", limit_train=200)
    validation = data.validation
    logits = model((validation.images.astype("float32") - data.mean) / data.std)
    losses = keras.losses.sparse_categorical_crossentropy(
        validation.labels, logits, from_logits=True
    )
    (*_, row) = (run / "history.csv").read_text().splitlines()
    assert np.mean(losses) == pytest.approx(float(row.split(",")[3]), rel=1e-5)
    # Version 0.1.0 had fewer settings.
    assert "pixels" not in json.loads((run / "config.json").read_text())["settings"]
