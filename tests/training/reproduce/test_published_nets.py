"""Nets of the zoo in the experiments: which are found, and what is measured on them."""

import json

import numpy as np
import pytest
from rich.console import Console

import keras_iterconv as ki
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


def test_the_measures_are_those_of_the_net_on_its_own_pixels(zoo, monkeypatch):
    model = ki.create_model("resnet_w8", (8, 8, 1), 10, blocks=2, width=2)
    monkeypatch.setattr(published_nets.ki, "load_pretrained", lambda name, zoo: model)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    # Labels of which the net gets about half: its own predictions, for 10 of them another class.
    logits = model.predict((images.astype("float32") - MEAN) / STD, verbose=0)
    labels = logits.argmax(axis=1).astype(np.int32)
    labels[:10] = (labels[:10] + 1) % 10
    split = Split(images, labels)
    # The pixels are scaled as the entry says, not as this data set does.
    data = ImageData("cifar10", split, split, split, 0.0, 1.0, tuple("0123456789"), 255)
    monkeypatch.setattr(published_nets.datasets, "load", lambda name: data)

    case = Case(NAME, {"published": NAME, "index_images": 20}, 0)
    found = measure_net(case, None, Console(quiet=True))
    assert found["indices"]["samples"] == 20
    assert found["indices"]["error"] == 0.5
    assert (found["error"], found["train_error"], found["parameters"]) == (0.25, 0.125, 7)


def test_a_case_without_a_net_of_the_zoo_is_trained(monkeypatch):
    monkeypatch.setattr(published_nets, "measure", lambda *given: given)
    case = Case("mnist, width 8", {"model": "resnet_w8"}, 0)
    assert measure_net(case, None, None) == (case, None, None)
