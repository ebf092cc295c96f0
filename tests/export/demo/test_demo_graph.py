"""The file of the demonstration: as exported for one image, with the norms that NumPy computes."""

import keras
import numpy as np
import onnxruntime
import pytest

import keras_iterconv as ki
from export.demo_graph import with_norms
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.preprocessing import Preprocessing

SHAPE = (5, 4, 2)
MAX_UNROLL = 12
DEPTHS = [(0.3, MAX_UNROLL), (0.02, 5), (0.0, 7), (1e9, 3)]


@pytest.fixture(scope="module")
def model():
    """Two blocks whose weights are neither zero nor equal."""
    inputs = keras.Input(SHAPE)
    settings = {"max_unroll": MAX_UNROLL, "threshold": 0.3, "step_size": 0.4}
    state = ki.NAISConv2D(2, name="first", **settings)(inputs)
    state = ki.NAISConv2D(2, name="second", **settings)(state)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(state)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.split("/")[-1] in ("E", "bias"):
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def exported(model):
    plain = Preprocessing((0.0,) * 2, (1.0,) * 2)
    return to_onnx(fold(model), plain, {}, inputs="required")


def session_of(file):
    options = onnxruntime.SessionOptions()
    # Warnings as in the browser: the file must have nothing to warn of.
    options.log_severity_level = 2
    return onnxruntime.InferenceSession(file.SerializeToString(), options)


def norms_by_numpy(model, numpy_double, image, depths):
    """Return the norms of a chain of blocks with the given numbers of updates."""
    norms, state = [], image.astype(np.float64)
    for name, depth in zip(("first", "second"), depths, strict=True):
        block, inputs = numpy_double(model.get_layer(name), image=SHAPE[:2]), state
        for _ in range(depth):
            change = block.change(state, inputs)
            norms.append(np.linalg.norm(change))
            state = state + change
    return norms


@pytest.mark.parametrize(("threshold", "max_unroll"), DEPTHS)
def test_the_norms_are_those_of_numpy(model, exported, numpy_double, threshold, max_unroll, capfd):
    rng = np.random.default_rng(1)
    batched, single = session_of(exported), session_of(with_norms(exported))
    for contrast in (0.1, 1.0, 3.0):
        image = contrast * rng.normal(size=(1, *SHAPE)).astype(np.float32)
        feeds = {
            "image": image,
            "threshold": np.array(threshold, np.float32),
            "max_unroll": np.array(max_unroll, np.int32),
        }
        found = dict(
            zip([each.name for each in single.get_outputs()], single.run(None, feeds), strict=True)
        )
        norms = found.pop("norms")
        assert list(found) == ["logits", "probabilities", "depth", "status"]
        for value, expected in zip(found.values(), batched.run(None, feeds), strict=True):
            np.testing.assert_array_equal(value, expected)
        expected = norms_by_numpy(model, numpy_double, image, found["depth"][0])
        # The file adds the threshold to what it compares with 0: of 1e9 nothing else is left.
        tolerance = 1e-5 * max(expected) + 2**-23 * threshold
        np.testing.assert_allclose(norms, expected, rtol=0, atol=tolerance)
    assert capfd.readouterr().err == ""


def test_the_file_takes_one_image_and_has_required_inputs(exported):
    session = session_of(with_norms(exported))
    assert [each.name for each in session.get_inputs()] == ["image", "threshold", "max_unroll"]
    assert session.get_overridable_initializers() == []
    assert session.get_inputs()[0].shape == [1, *SHAPE]
    assert {each.shape[0] for each in session.get_outputs()} == {1, "updates"}
