"""The trained models of this checkout: whole, small, and as good as they are said to be."""

import json
from pathlib import Path

import onnxruntime
import pytest

from export.zoo_folder import check_index
from keras_iterconv.zoo.index import verified_path

ZOO = Path(__file__).parents[2] / "saved_models"
INDEX = json.loads((ZOO / "index.json").read_text(encoding="utf-8"))
MODELS = INDEX["models"]


def test_the_index_fits_its_schema_and_all_is_under_100_mb():
    check_index(INDEX, ZOO)
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100e6
    named = {ZOO / file for entry in MODELS.values() for file in entry["files"]}
    assert set(files) == {ZOO / "index.json", *named}


@pytest.mark.parametrize("name", MODELS)
def test_files_are_those_that_were_published(name):
    paths = [verified_path(ZOO, name, file, facts) for file, facts in MODELS[name]["files"].items()]
    (path,) = [path for path in paths if path.suffix == ".onnx"]
    weights = 4 * MODELS[name]["parameters"]
    assert weights < path.stat().st_size < 1.1 * weights
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [part.name for part in session.get_inputs()] == ["image"]
    (card,) = [path for path in paths if path.name == "README.md"]
    assert MODELS[name]["command"] in card.read_text(encoding="utf-8")


def test_accuracies_are_those_that_the_zoo_was_made_for():
    accuracy = {name: entry["result"]["test_accuracy"] for name, entry in MODELS.items()}
    assert accuracy["nais_mnist"] >= 0.973
    assert accuracy["nais10_digits"] >= 0.97
