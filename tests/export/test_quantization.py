"""Files with weights of 8 bits, against NumPy, against their float32 files, and batch by batch."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import keras_iterconv as ki
from keras_iterconv.exporting import int8_model
from keras_iterconv.exporting.int8_model import quantize
from keras_iterconv.exporting.int8_weights import round_weights
from keras_iterconv.exporting.onnx_graph import all_graphs, all_tensors

FLOAT = TensorProto.FLOAT
THRESHOLD = 1e-3


def run(path, images, output=None, **settings):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = path if isinstance(path, str) else path.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: images, **settings}
    found = dict(
        zip([z.name for z in session.get_outputs()], session.run(None, feeds), strict=True)
    )
    return found if output is None else found[output]


def make_product(weight, nodes=None, **constants):
    """Return a model of one matrix product, whose outputs for the identity are its weight."""
    nodes = nodes or [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    tensors = {"weight": weight, **constants}
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", FLOAT, ["N", None])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", None])],
        [numpy_helper.from_array(np.asarray(z), name) for name, z in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def large_floats(model):
    return [z for z in all_tensors(model) if z.data_type == FLOAT and np.prod(z.dims) >= 1024]


@pytest.fixture(scope="module")
def images():
    """Return 64 images of very different contrasts, whose depths spread."""
    rng = np.random.default_rng(1)
    contrast = np.logspace(-1, 0.5, 64).reshape(-1, 1, 1, 1)
    return (contrast * rng.normal(size=(64, 6, 6, 16))).astype(np.float32)


def make_model(*thresholds):
    """Return a model with a block for each threshold, of which nothing is zero."""
    keras.utils.set_random_seed(0)
    inputs = state = keras.Input((6, 6, 16))
    for threshold in thresholds:
        state = ki.NAISConv2D(16, max_unroll=60, threshold=threshold, step_size=0.4)(state)
    outputs = keras.layers.Dense(64)(keras.layers.Flatten()(state))
    model = ki.IterativeModel(inputs, outputs)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        spread = 0.15 if weight.shape.rank > 2 else 0.05
        weight.assign(weight + rng.normal(scale=spread, size=weight.shape))
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """Return the paths of a file and of its quantised copy, and the report."""
    folder = tmp_path_factory.mktemp("quantised")
    paths = str(folder / "net.onnx"), str(folder / "net_int8.onnx")
    ki.export_onnx(make_model(THRESHOLD, THRESHOLD), paths[0])
    report = ki.quantize_onnx(*paths, [images[:32], images[32:]])
    return *paths, report


PRODUCTS = {"MatMul": {}, "Gemm": {}, "Einsum": {"equation": "ni,io->no"}}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_weight_is_rounded_by_the_scale_of_its_group(product):
    rng = np.random.default_rng(0)
    # The columns have scales of their own; the rows have not.
    weight = (rng.normal(size=(48, 40)) * np.logspace(-3, 1, 40)).astype(np.float32)
    nodes = [helper.make_node(product, ["x", "weight"], ["y"], **PRODUCTS[product])]
    rounded = round_weights(make_product(weight, nodes))
    found = run(rounded, np.eye(48, dtype=np.float32), "y")
    step = np.abs(weight).max(axis=0) / 127
    error = np.abs(found - weight)
    assert (error <= step * 0.5001).all()
    # Not more precise either: what is stored are integers of 8 bits.
    assert (error > step * 0.4).any(axis=0).all()
    assert np.allclose(found / step, np.round(found / step), atol=1e-3)
    assert not large_floats(rounded)


def test_one_outlier_in_a_group_is_kept_as_it_is():
    rng = np.random.default_rng(0)
    weight = rng.normal(scale=0.01, size=(48, 48)).astype(np.float32)
    np.fill_diagonal(weight, -1 - rng.uniform(size=48))
    found = run(round_weights(make_product(weight)), np.eye(48, dtype=np.float32), "y")
    assert np.array_equal(np.diag(found), np.diag(weight))
    rest = weight - np.diag(np.diag(weight))
    # A scale of 2 / 127 would leave errors of up to 0.008.
    assert np.abs(found - weight).max() <= np.abs(rest).max() / 127 * 0.5001


def test_zeros_and_the_smallest_numbers_stay_near():
    weight = np.zeros((32, 32), np.float32)
    weight[:, 1], weight[0, 2] = 1e-42, 3
    found = run(round_weights(make_product(weight)), np.eye(32, dtype=np.float32), "y")
    assert np.abs(found - weight).max() <= 1e-41


def test_the_kernels_of_all_updates_have_scales_of_their_own():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 32, 32)) * np.array([1e-3, 1, 1e3]).reshape(3, 1, 1)
    nodes = [
        helper.make_node("Gather", ["weight", "k"], ["kernel"], axis=0),
        helper.make_node("MatMul", ["x", "kernel"], ["y"]),
    ]
    for k in range(3):
        net = make_product(weight.astype(np.float32), nodes, k=np.int64(k))
        found = run(round_weights(net), np.eye(32, dtype=np.float32), "y")
        assert np.abs(found - weight[k]).max() <= np.abs(weight[k]).max() / 127 * 0.51


@pytest.mark.parametrize("kind", ["Div", "both", "output", "not finite", "float64"])
def test_what_products_alone_do_not_read_is_left(kind):
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    product = helper.make_node("MatMul", ["x", "weight"], ["y"])
    nodes = {
        "Div": [helper.make_node("Div", ["x", "weight"], ["y"])],
        "both": [
            helper.make_node("Sub", ["x", "weight"], ["less"]),
            helper.make_node("MatMul", ["less", "weight"], ["y"]),
        ],
    }.get(kind, [product])
    if kind == "not finite":
        weight[3, 4] = np.nan
    net = make_product(weight.astype(np.float64 if kind == "float64" else np.float32), nodes)
    if kind == "output":
        net.graph.output.append(helper.make_tensor_value_info("weight", FLOAT, [32, 32]))
    if kind == "float64":
        for value in (*net.graph.input, *net.graph.output):
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    assert round_weights(net) == net


def test_a_file_is_smaller_and_its_answers_are_near(files, images):
    path, int8_path, report = files
    before, after = run(path, images), run(int8_path, images)
    assert list(before) == list(after)
    sizes = [Path(each).stat().st_size for each in (int8_path, path)]
    assert [report.bytes, report.float_bytes] == sizes
    assert report.size < 0.35
    difference = np.abs(after["logits"] - before["logits"]).max()
    assert 0 < difference < 0.02 * np.abs(before["logits"]).max()
    updates = [each["depth"].sum(axis=1).mean() for each in (after, before)]
    assert [report.updates, report.float_updates] == pytest.approx(updates)
    assert len(np.unique(before["depth"])) > 6
    assert updates[0] == pytest.approx(updates[1], rel=0.02)
    assert report.samples == 64


def test_a_kernel_is_constant_in_the_loop_that_reads_it(files):
    quantised = onnx.load(files[1])
    assert not large_floats(quantised)
    known = set()
    # The outer graphs come first.
    for part in all_graphs(quantised.graph):
        known |= {constant.name for constant in part.initializer}
        for node in part.node:
            if all(name in known for name in node.input) and node.input:
                known.update(node.output)
        for node in part.node:
            if node.op_type in ("Conv", "MatMul"):
                assert node.input[1] in known


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_sample_does_not_depend_on_its_batch(files, images, threshold):
    settings = {} if threshold is None else {"threshold": np.array(threshold, np.float32)}
    whole = run(files[1], images, **settings)
    for number in range(0, len(images), 7):
        alone = run(files[1], images[number : number + 1], **settings)
        for name in ("depth", "status"):
            assert np.array_equal(alone[name][0], whole[name][number])
        scale = np.abs(whole["logits"][number]).max()
        assert np.abs(alone["logits"][0] - whole["logits"][number]).max() < 1e-5 * scale


def slowed(model):
    """Return a model whose states settle later: rounding that would change the depth."""
    spoilt = round_weights(model)
    spoilt.CopyFrom(model)
    for tensor in all_tensors(spoilt):
        if len(tensor.dims) == 4:
            tensor.CopyFrom(
                numpy_helper.from_array(
                    np.float32(0.8) * numpy_helper.to_array(tensor), tensor.name
                )
            )
    return spoilt


@pytest.mark.parametrize("inputs", ["settable", "fixed"])
def test_thresholds_are_set_anew_by_one_factor(tmp_path, images, monkeypatch, inputs):
    path, own = str(tmp_path / "net.onnx"), (THRESHOLD, 4 * THRESHOLD)
    ki.export_onnx(make_model(*own), path, inputs=inputs)
    net = onnx.load(path)
    monkeypatch.setattr(int8_model, "round_weights", slowed)
    quantised, report = quantize(net, [images])
    expected, updates = (run(each, images, "depth").sum(axis=1).mean() for each in (net, quantised))
    late = run(slowed(net), images, "depth").sum(axis=1).mean()
    assert late > 1.2 * expected
    assert updates == pytest.approx(expected, rel=0.02)
    assert [report.updates, report.float_updates] == pytest.approx([updates, expected])
    assert sorted(report.float_thresholds.values()) == pytest.approx(own)
    for name, threshold in report.thresholds.items():
        factor = threshold / report.float_thresholds[name]
        assert factor > 1.2
        assert factor == pytest.approx(max(report.thresholds.values()) / own[1], rel=0.01)
    texts = {text.key: text.value for text in quantised.metadata_props}
    defaults = {z.name: numpy_helper.to_array(z) for z in quantised.graph.initializer}
    assert len(report.thresholds) == 2
    for name, threshold in report.thresholds.items():
        assert float(texts[name]) == threshold
        assert defaults[name] == np.float32(threshold)


@pytest.mark.parametrize(
    ("updates", "expected", "factor"),
    [
        (lambda factor: 100 / factor, 100, 1),
        (lambda factor: 100 / factor, 30, 10 / 3),
        (lambda factor: 100 / factor, 300, 1 / 3),
        # A rule that stops above its threshold.
        (lambda factor: 100 * factor, 30, 0.3),
        (lambda factor: 100 * factor, 300, 3),
        # Only near: the updates change by steps, or not at all.
        (lambda factor: 10.0 if factor < 3 else 20.0, 19, 4),
        (lambda factor: 10.0, 19, 1),
    ],
)
def test_the_factor_is_where_the_updates_are_equal(updates, expected, factor):
    found, reached = int8_model._find_factor(updates, expected)
    assert found == pytest.approx(factor, rel=0.02)
    assert reached == updates(found)


def test_batches_must_fit_the_inputs(files, images):
    net = onnx.load(files[0])
    name = net.graph.input[0].name
    for batches, message in (
        ([], "at least one sample"),
        ([images[:0]], "at least one sample"),
        ([(images, images[:, 0, 0, 0])], "no labels"),
        ([{"pixels": images}], "names of the inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize(net, batches)
    _, report = quantize(net, [{name: images[:4]}, [images[:4]]])
    assert report.samples == 8


def test_paths_are_checked_first(files, tmp_path, images):
    (tmp_path / "text.onnx").write_text("no protocol buffer")
    with pytest.raises(ValueError, match=r"^`path` must be an ONNX file. .*text.onnx'"):
        ki.quantize_onnx(tmp_path / "text.onnx", tmp_path / "net.onnx", [images])
    with pytest.raises(FileNotFoundError, match="`path` must lie in an existing folder"):
        ki.quantize_onnx(files[0], tmp_path / "none" / "net.onnx", [images])
    with pytest.raises(FileNotFoundError):
        ki.quantize_onnx(tmp_path / "none.onnx", tmp_path / "net.onnx", [images])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.onnx"]


def test_a_model_of_no_blocks_has_no_updates(tmp_path):
    inputs = keras.Input((40,))
    path = str(tmp_path / "net.onnx")
    ki.export_onnx(keras.Model(inputs, keras.layers.Dense(40)(inputs)), path)
    report = ki.quantize_onnx(path, path, [np.ones((2, 40), np.float32)])
    assert (report.updates, report.thresholds) == (None, {})
    assert report.size < 0.5
    assert str(report) == f"int8 weights: {report.size:.1%} of {report.float_bytes:,} bytes"
