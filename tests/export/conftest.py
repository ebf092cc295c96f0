"""Small exported nets, built by hand, what NumPy says that they answer, and picture files."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import json

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keras_iterconv.preprocessing import Preprocessing

# Neither square nor equal to each other: swapped axes show.
ADAPTIVE_SHAPE, ADAPTIVE_SCALE = (4, 6, 1), 16
FIXED_SHAPE, FIXED_SCALE = (3, 5, 3), 255
ADAPTIVE_CLASSES = ("night", "dusk", "noon", "snow")
FIXED_CLASSES = ("red", "green", "blue")
# Updates that each block needs at brightness 1 and threshold 1.
NEEDED = np.array([10, 60], np.float32)
THRESHOLD, MAX_UNROLL = 1.0, 20
# Never reached: the net makes all its updates.
NO_THRESHOLD = 1e-6


def weights(shape, classes):
    rng = np.random.default_rng(len(classes))
    return rng.normal(size=(int(np.prod(shape)), len(classes))).astype(np.float32)


def make_net(adaptive, scale=None):
    """Return a `ModelProto` that answers as `expected` below, without any loop."""
    shape = ADAPTIVE_SHAPE if adaptive else FIXED_SHAPE
    classes = ADAPTIVE_CLASSES if adaptive else FIXED_CLASSES
    scale = scale or (ADAPTIVE_SCALE if adaptive else FIXED_SCALE)
    node, constants = helper.make_node, []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    nodes = [
        node("Div", ["image", constant("scale", np.float32(scale))], ["pixels"]),
        node("Flatten", ["pixels"], ["flat"]),
        node("ReduceMean", ["flat"], ["brightness"], axes=[1], keepdims=1),
        node("Log", ["brightness"], ["log"]),
        node("MatMul", ["flat", constant("W", weights(shape, classes))], ["scores"]),
        node("Mul", ["brightness", constant("needed", NEEDED)], ["at_one"]),
        node("Div", ["at_one", "threshold"], ["exact"]),
        node("Ceil", ["exact"], ["wanted"]),
        node("Cast", ["max_unroll"], ["most"], to=TensorProto.FLOAT),
        node("Min", ["wanted", "most"], ["stopped"]),
        node("Max", ["stopped", constant("one", np.float32(1))], ["updates"]),
        node("Cast", ["updates"], ["depth"], to=TensorProto.INT32),
        node("ReduceSum", ["updates", constant("axes", np.array([1]))], ["total"], keepdims=1),
        node("Mul", ["total", constant("per_update", np.float32(0.01))], ["drift"]),
        node("Mul", ["drift", constant("slope", np.arange(len(classes), dtype=np.float32))], ["d"]),
        node("Add", ["scores", "d"], ["drifted"]),
        # A black image has no finite logarithm, and so no finite answer.
        node("Add", ["drifted", "log"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
        node("IsInf", ["log"], ["infinite"]),
        node("Greater", ["wanted", "most"], ["over"]),
        node("Cast", ["over"], ["limited"], to=TensorProto.INT32),
        node("Where", ["infinite", constant("two", np.int32(2)), "limited"], ["status"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *shape])]
    if adaptive:
        inputs.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, []))
        inputs.append(helper.make_tensor_value_info("max_unroll", TensorProto.INT32, []))
    constant("threshold", np.float32(THRESHOLD if adaptive else NO_THRESHOLD))
    constant("max_unroll", np.int32(MAX_UNROLL))
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(classes)]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(classes)]),
        helper.make_tensor_value_info("depth", TensorProto.INT32, ["N", len(NEEDED)]),
        helper.make_tensor_value_info("status", TensorProto.INT32, ["N", len(NEEDED)]),
    ]
    graph = helper.make_graph(nodes, "net", inputs, outputs, constants)
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = {
        "model": "nais_small" if adaptive else "resnet_small",
        "dataset": "skies",
        "classes": json.dumps(classes),
        "scale": str(scale),
        "license": "Apache-2.0",
        "version": "1",
        "result": json.dumps({"test_accuracy": 0.9}),
    }
    if adaptive:
        metadata |= {"threshold": str(THRESHOLD), "max_unroll": str(MAX_UNROLL)}
    helper.set_model_props(net, metadata)
    onnx.checker.check_model(net, full_check=True)
    return net


def expected_answers(images, adaptive, threshold=None, max_unroll=MAX_UNROLL):
    """Return logits, probabilities, depth and status, in float64 but for the depth."""
    if threshold is None:
        threshold = THRESHOLD if adaptive else NO_THRESHOLD
    scale = ADAPTIVE_SCALE if adaptive else FIXED_SCALE
    shape = ADAPTIVE_SHAPE if adaptive else FIXED_SHAPE
    classes = ADAPTIVE_CLASSES if adaptive else FIXED_CLASSES
    flat = np.asarray(images, np.float64).reshape(len(images), -1) / scale
    brightness = flat.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # 0 is a threshold too
        wanted = np.ceil(brightness * NEEDED / threshold)
    depth = np.clip(wanted, 1, max_unroll)
    logits = flat @ weights(shape, classes) + np.log(brightness)
    logits = logits + 0.01 * depth.sum(axis=1, keepdims=True) * np.arange(len(classes))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    status = (wanted > max_unroll).astype(int)
    return logits, odds / odds.sum(axis=1, keepdims=True), depth.astype(int), status


@pytest.fixture(scope="session")
def net_files(tmp_path_factory):
    """Return the paths of a net of adaptive depth, `[True]`, and one of fixed depth, `[False]`."""
    folder = tmp_path_factory.mktemp("nets")
    paths = {adaptive: folder / f"adaptive_{adaptive}.onnx" for adaptive in (True, False)}
    for adaptive, path in paths.items():
        onnx.save(make_net(adaptive), path)
    return paths


@pytest.fixture
def adaptive_net(net_files):
    return str(net_files[True])


@pytest.fixture
def fixed_net(net_files):
    return str(net_files[False])


@pytest.fixture
def build_net():
    """Return the function that builds a net, to be spoilt."""
    return make_net


@pytest.fixture
def expected():
    return expected_answers


@pytest.fixture
def draw_images():
    """Return a function that draws raw images for a net, float32, of many brightnesses."""

    def draw(adaptive, samples=7, seed=0):
        rng = np.random.default_rng(seed)
        shape = ADAPTIVE_SHAPE if adaptive else FIXED_SHAPE
        scale = ADAPTIVE_SCALE if adaptive else FIXED_SCALE
        ground = np.linspace(0.1, 1, samples).reshape(-1, 1, 1, 1)
        return (rng.uniform(size=(samples, *shape)) * ground * scale).astype(np.float32)

    return draw


@pytest.fixture
def save(tmp_path):
    """Return a function that writes an array or a Pillow image, and returns the path."""

    def write(image, name="picture.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.fixture
def photos(save, draw_images):
    """Write seven grey pictures of the adaptive net's size; return their paths and 8-bit pixels."""
    pixels = np.round(draw_images(True)[..., 0] * 255 / 16).astype(np.uint8)
    return [save(image, f"sky{k}.png") for k, image in enumerate(pixels)], pixels


@pytest.fixture(scope="session")
def make_model():
    """Return a function that makes a small net of which nothing is zero or one."""

    def make(name, seed=0, shape=(8, 8, 1), **settings):
        keras.utils.set_random_seed(seed)
        model = ki.create_model(name, shape, 5, **settings)
        rng = np.random.default_rng(seed)
        for weight in model.weights:
            part = weight.path.split("/")[-1].rstrip("12")
            if part in ("gamma", "variance", "moving_variance"):
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            elif part in ("beta", "mean", "moving_mean", "E", "b", "bias", "delta"):
                weight.assign(rng.normal(scale=0.3, size=weight.shape))
            if weight.constraint is not None:
                weight.assign(weight.constraint(weight))
        model.converge_caps()
        return model

    return make


@pytest.fixture(scope="session")
def draw_raw():
    """Return a function that draws raw images, float32, of very different contrasts."""

    def draw(samples, shape=(8, 8, 1), seed=0):
        rng = np.random.default_rng(seed)
        contrast = np.logspace(-2, 1.5, samples).reshape(-1, 1, 1, 1)
        return (3 + 2 * contrast * rng.normal(size=(samples, *shape))).astype(np.float32)

    return draw


@pytest.fixture(scope="session")
def preprocessing():
    """Return the mean and the standard deviation of what `draw_raw` draws."""
    return Preprocessing((3.0,), (2.0,))
