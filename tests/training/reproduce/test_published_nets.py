"""Nets of the zoo in the experiments: which are found, and what is measured on them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from keras_iterconv.datasets import ImageData, Split
from tests.support.small_zoo import ENTRY
from training.reproduce import published_nets
from training.reproduce.experiment import Case
from training.reproduce.published_nets import cifar10_nets, measure_net

NAME = "icr_w16_cifar10"
MEAN, STD = 100.0, 50.0


FACTS = {"sha256": "0" * 64, "bytes": 1}


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Make a zoo of one net, under the name of a CIFAR-10 net."""
    result = {**ENTRY["result"], "test_accuracy": 0.75, "train_accuracy": 0.875}
    files = {f"{NAME}/1/{NAME}.keras": FACTS}
    entry = {**ENTRY, "dataset": "cifar10", "mean": [MEAN], "std": [STD], "result": result}
    index = {"version": 1, "models": {NAME: {**entry, "files": files}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("KERAS_ITERCONV_ZOO", str(tmp_path))


def test_only_nets_that_the_zoo_holds_are_found(zoo):
    assert cifar10_nets("cpu") == {
        NAME: {"published": NAME, "sha256": FACTS["sha256"], "index_images": 1000}
    }


def test_the_indices_are_measured_on_pixels_of_the_net_s_own_scale(zoo, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    split = Split(images, np.zeros(40, np.int32))
    # The entry has another scale than this data set.
    data = ImageData("cifar10", split, split, split, 0.0, 1.0, tuple("0123456789"), 255)

    def measure_indices(model, batches, samples):
        seen = np.concatenate([np.asarray(pixels) for pixels, _ in batches])
        np.testing.assert_allclose(seen, (images - MEAN) / STD, rtol=1e-5, atol=1e-6)
        return SimpleNamespace(to_dict=lambda: {"model": model, "samples": samples})

    monkeypatch.setattr(published_nets.datasets, "load", lambda name: data)
    monkeypatch.setattr(published_nets.ki, "load_pretrained", lambda name, zoo: "net")
    monkeypatch.setattr(published_nets.ki, "measure_indices", measure_indices)
    case = Case(NAME, {"published": NAME, "index_images": 20}, 0)
    assert measure_net(case, None, Console(quiet=True)) == {
        "error": 0.25,
        "train_error": 0.125,
        "parameters": 7,
        "indices": {"model": "net", "samples": 20},
    }


def test_a_case_without_a_net_of_the_zoo_is_trained(monkeypatch):
    monkeypatch.setattr(published_nets, "measure", lambda *given: given)
    case = Case("mnist, width 8", {"model": "resnet_w8"}, 0)
    assert measure_net(case, None, None) == (case, None, None)
