"""The published net for sequences of any length: its answers in ONNX Runtime, and its check."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from export import predict
from export.check import check_zoo
from export.classifier import OnnxClassifier
from keras_iterconv.zoo.index import ZooError

ZOO = Path(__file__).parents[2] / "saved_models"
NAME = "deep_thinking_prefix_sums"
FILE = ZOO / NAME / "1" / f"{NAME}.onnx"
# Far below the standardised value of padding, which is -16.
PADDING = -100


@pytest.fixture(scope="module")
def net():
    return OnnxClassifier(FILE)


@pytest.fixture
def bits():
    return np.random.default_rng(7).integers(0, 2, (6, 40))


def answers(net, bits):
    return net.classify(bits[..., np.newaxis, np.newaxis])


def test_what_it_says_of_the_net(net):
    assert net.input_shape == (None, 1, 1)
    assert net.per_position
    assert net.classes == ("even", "odd")


@pytest.mark.parametrize("length", [1, 8, 40])
def test_sequences_of_any_length(net, bits, length):
    found = answers(net, bits[:, :length])
    assert found.logits.shape == found.probabilities.shape == (6, length, 2)
    assert found.depth.shape == found.status.shape == (6, 1)
    right = np.cumsum(bits[:, :length], axis=1) % 2
    np.testing.assert_array_equal(found.logits.argmax(-1), right)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-6)


def test_padded_sequences_are_answered_as_alone(net, bits):
    padded = bits.copy()
    ends = [40, 5, 12, 31, 8, 20]
    for row, end in zip(padded, ends, strict=True):
        row[end:] = PADDING
    together = answers(net, padded)
    for n, end in enumerate(ends):
        alone = answers(net, bits[n : n + 1, :end])
        np.testing.assert_allclose(together.logits[n, :end], alone.logits[0], rtol=0, atol=1e-4)
        assert together.depth[n] == alone.depth[0]


def test_no_sequences_give_empty_answers(net, bits):
    found = answers(net, bits[:0])
    assert found.logits.shape == (0, 40, 2)
    assert found.depth.shape == (0, 1)


@pytest.mark.parametrize("shape", [(2, 8, 2, 1), (2, 0, 1, 1), (2, 8, 1), (2, 8, 1, 3)])
def test_a_wrong_shape_is_one_line(net, shape):
    with pytest.raises(ValueError, match=r"\[N, H, 1, 1\] with H of at least 1\. Received"):
        net.classify(np.zeros(shape))


def test_pictures_are_refused(capsys, tmp_path):
    assert predict.main([str(FILE), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "MODEL must have one answer for pictures of one size" in error


@pytest.fixture
def zoo_of_one(tmp_path):
    shutil.copytree(ZOO / NAME, tmp_path / NAME)
    index = json.loads((ZOO / "index.json").read_text(encoding="utf-8"))
    index["models"] = {NAME: index["models"][NAME]}

    def write(**changes):
        index["models"][NAME].update(changes)
        (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
        return tmp_path

    return write


def test_its_check_runs_all_formats(zoo_of_one):
    check_zoo(zoo_of_one(), Console(quiet=True), trust=True)


def test_its_check_compares_the_sizes_that_are_not_free(zoo_of_one):
    with pytest.raises(ZooError, match=r"input_shape is \[24, 1, 1\], .* \[24, 2, 1\]"):
        check_zoo(zoo_of_one(input_shape=[24, 2, 1]), Console(quiet=True))
