"""ONNX files, run by ONNX Runtime, against the Keras models that they come from."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

import keras_iterconv as ki
from export.classifier import OnnxClassifier
from keras_iterconv.exporting import onnx_blocks
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_graph import all_graphs, subgraphs
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.tasks import TASKS
from tests.support.comparisons import assert_same_predictions

CHAIN = {"filters": (4, 8), "blocks": 2}
NETS = {
    "adaptive": ("nais_adaptive", {**CHAIN, "threshold": 0.05}),
    "fixed": ("nais10", CHAIN),
    "untied": ("nais10", {**CHAIN, "tied": False, "max_unroll": 3}),
    "untied_adaptive": (
        "nais_adaptive",
        {**CHAIN, "tied": False, "max_unroll": 6, "threshold": 0.3},
    ),
    "dense": ("nais_mnist", {"units": 24}),
    "dense_adaptive": ("nais_mnist", {"units": 24, "threshold": 0.5}),
    "from_zero": ("nais_adaptive", {**CHAIN, "threshold": 0.2, "initial_state": "zeros"}),
    "autonomous": ("resnet_sh_stable", {"units": 24, "threshold": 0.2}),
    "resnet": ("resnet_w8", {"blocks": 1}),
    "pcr": ("pcr_w8", {"blocks": 1}),
    "resnet54": ("resnet54", {"filters": (4,), "blocks": 1}),
}
ADAPTIVE = [
    "adaptive",
    "untied_adaptive",
    "dense_adaptive",
    "from_zero",
    "autonomous",
]
METADATA = {
    "model": "small",
    "dataset": "none",
    "classes": json.dumps(list("abcde")),
    "scale": "16",
}
DEFAULTS = {"threshold": "0.05", "max_unroll": "10"}


class Net:
    """A model and its file."""

    def __init__(self, model, converted, path):
        self.model, self.converted, self.path = model, converted, path
        onnx.save(converted, path)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(self, images, **depth):
        outputs = self.session.run(None, {"image": images, **depth})
        return dict(zip([o.name for o in self.session.get_outputs()], outputs, strict=True))


@pytest.fixture(scope="module")
def nets(make_model, preprocessing, tmp_path_factory):
    """Return a function that gives the net of a kind, converted once."""
    folder, made = tmp_path_factory.mktemp("nets"), {}

    def get(kind):
        if kind not in made:
            name, settings = NETS[kind]
            model = make_model(name, **settings)
            converted = to_onnx(fold(model), preprocessing, METADATA)
            made[kind] = Net(model, converted, folder / f"{kind}.onnx")
        return made[kind]

    return get


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("kind", NETS)
def test_it_answers_as_keras(nets, draw_raw, kind, batch):
    net, images = nets(kind), draw_raw(batch)
    found = net.run(images)
    assert_same_predictions(found, ki.with_depth(net.model)((images - 3) / 2))
    assert list(found) == ["logits", "probabilities", "depth", "status"]
    assert [v.dtype for v in found.values()] == [np.float32, np.float32, np.int32, np.int32]
    if kind in ADAPTIVE[:3] and batch == 7:
        assert len(np.unique(found["depth"].sum(axis=1))) > 2
        assert set(found["status"].ravel()) == {0, 1}


@pytest.mark.parametrize(
    ("threshold", "max_unroll"),
    [(None, 2), (0.5, None), (2.0, 3), (1e-6, 5), (1e6, 4), (1e-30, 5), (3e38, None), (0.5, 1)],
)
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_another_depth_is_that_of_set_depth(nets, draw_raw, kind, threshold, max_unroll):
    net, images = nets(kind), draw_raw(5)
    before = ki.iterated_blocks(net.model)[0]
    before = {"threshold": before.threshold, "max_unroll": before.max_unroll}
    wanted = {
        "threshold": before["threshold"] if threshold is None else threshold,
        "max_unroll": max_unroll or before["max_unroll"],
    }
    ki.set_depth(net.model, **wanted)
    try:
        expected = ki.with_depth(net.model)((images - 3) / 2)
    finally:
        ki.set_depth(net.model, **before)
    given = {} if threshold is None else {"threshold": np.array(threshold, np.float32)}
    if max_unroll is not None:
        given["max_unroll"] = np.array(max_unroll, np.int32)
    assert_same_predictions(net.run(images, **given), expected)
    # Nothing of it stays.
    assert_same_predictions(net.run(images), ki.with_depth(net.model)((images - 3) / 2))


@pytest.mark.parametrize(("threshold", "updates"), [(1e-39, 1), (1e-45, 1), (0, 5)])
def test_a_state_that_stands_still_is_settled_at_every_positive_threshold(
    still_net, draw_raw, threshold, updates
):
    found = still_net.run(
        draw_raw(3), threshold=np.array(threshold, np.float32), max_unroll=np.array(5, np.int32)
    )
    np.testing.assert_array_equal(found["depth"], [[updates]] * 3)
    np.testing.assert_array_equal(found["status"], [[updates == 5]] * 3)


@pytest.fixture(scope="module")
def still_net(make_model, preprocessing, tmp_path_factory):
    """Return a net whose only block never changes its state."""
    model = make_model("nais_mnist", units=3, threshold=0.5)
    for weight in ki.iterated_blocks(model)[0].weights:
        weight.assign(np.zeros(weight.shape))
    path = tmp_path_factory.mktemp("still") / "net.onnx"
    return Net(model, to_onnx(fold(model), preprocessing, METADATA), path)


@pytest.mark.parametrize("kind", NETS)
def test_an_image_that_is_not_finite_stays_alone(nets, draw_raw, kind):
    net, images = nets(kind), draw_raw(5)
    clean = net.run(images)
    images[2, 1, 3] = np.nan
    found = net.run(images)
    assert (found["status"][2] == 2).all()
    assert not np.isfinite(found["logits"][2]).any()
    rest = np.arange(5) != 2
    for name, value in clean.items():
        np.testing.assert_allclose(found[name][rest], value[rest], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_states_that_overflow_end_as_in_keras(nets, draw_raw, kind):
    net, images = nets(kind), draw_raw(5)
    images[1, 2, 3], images[2, 0, 0], images[3], images[4, 1, 1] = np.inf, np.nan, 1e30, -np.inf
    found, expected = net.run(images), ki.with_depth(net.model)((images - 3) / 2)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_array_equal(found["status"], expected["status"])
    assert (found["status"][1:] == 2).any(axis=1).all()


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("scale", [1e19, 1e25])
def test_states_too_large_for_a_norm_end_as_in_keras(nets, draw_raw, kind, scale):
    """Each number is finite, and the sum of their squares is not."""
    net, images = nets(kind), draw_raw(4) * np.float32(scale)
    found, expected = net.run(images), ki.with_depth(net.model)((images - 3) / 2)
    np.testing.assert_array_equal(found["status"], expected["status"])
    np.testing.assert_array_equal(found["depth"], expected["depth"])


@pytest.mark.parametrize("kind", NETS)
def test_no_images_have_no_answers(nets, draw_raw, kind):
    net = nets(kind)
    found = net.run(draw_raw(2)[:0])
    blocks = len(ki.iterated_blocks(net.model))
    assert [value.shape for value in found.values()] == [(0, 5)] * 2 + [(0, blocks)] * 2


@pytest.mark.parametrize("kind", NETS)
def test_an_image_is_answered_as_if_alone(nets, draw_raw, kind):
    net, images = nets(kind), draw_raw(6)
    together = net.run(images)
    order = np.random.default_rng(1).permutation(6)
    mixed = net.run(images[order])
    for k in range(6):
        alone = net.run(images[k : k + 1])
        for name, value in alone.items():
            for other in (together[name][k], mixed[name][list(order).index(k)]):
                np.testing.assert_allclose(other, value[0], rtol=1e-4, atol=1e-5, err_msg=name)
                if name in ("depth", "status"):
                    np.testing.assert_array_equal(other, value[0])


def loops_of(graph):
    """Yield each loop with its body, also those inside loops."""
    for part in all_graphs(graph):
        for node in part.node:
            if node.op_type == "Loop":
                yield node, subgraphs(node)[0]


NAIS = [kind for kind in NETS if not NETS[kind][0].startswith(("resnet_w", "pcr", "resnet54"))]


@pytest.mark.parametrize("kind", NAIS)
def test_loops_hold_no_transposes_and_carry_no_weights(nets, kind):
    graph = nets(kind).converted.graph
    loops = list(loops_of(graph))
    assert loops
    constants = {t.name for part in all_graphs(graph) for t in part.initializer}
    for loop, body in loops:
        operators = [node.op_type for part in all_graphs(body) for node in part.node]
        assert "Transpose" not in operators
        assert "Constant" not in operators
        weights = {
            t.name for part in all_graphs(graph) for t in part.initializer if len(t.dims) > 1
        }
        assert not weights & set(loop.input)
        made = {name: node for node in body.node for name in node.output}
        for before, after in zip(body.input[2:], body.output[1:], strict=False):
            name = after.name
            while name in made and made[name].op_type == "Identity":
                name = made[name].input[0]
            assert name != before.name
            assert name in made or name in constants


@pytest.mark.parametrize("kind", [kind for kind in NAIS if "untied" not in kind])
def test_a_kernel_is_stored_once_and_a_constant_of_each_loop(nets, kind):
    """ONNX Runtime evaluates a reshape of a constant when it loads the file."""
    graph = nets(kind).converted.graph
    constants = {t.name: t for part in all_graphs(graph) for t in part.initializer}
    kernels = []
    for part in all_graphs(graph):
        own = {tensor.name for tensor in part.initializer}
        reshaped = {n.output[0]: n.input for n in part.node if n.op_type == "Reshape"}
        for node in part.node:
            if node.op_type in ("Conv", "MatMul", "Gemm"):
                kernel = node.input[1]
                if kernel not in own:
                    kernel, shape = reshaped[kernel]
                    assert shape in own
                if part is not graph:
                    kernels.append(constants[kernel])
    blocks = [b for b in ki.iterated_blocks(nets(kind).model) if isinstance(b, ki.IteratedBlock)]
    assert len({kernel.name for kernel in kernels}) == len(blocks)
    assert len({kernel.raw_data for kernel in kernels}) == len(blocks)


@pytest.mark.parametrize("kind", ["adaptive", "from_zero"])
def test_onnx_runtime_has_its_fast_convolutions_in_each_loop(nets, kind, tmp_path):
    net, options = nets(kind), onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(net.path, options, providers=["CPUExecutionProvider"])
    graph, found = onnx.load(options.optimized_model_filepath).graph, 0
    for _, body in loops_of(graph):
        own = {tensor.name for tensor in body.initializer}
        kernels = [node.input[1] for node in body.node if node.op_type == "Conv"]
        assert set(kernels) <= own
        found += len(kernels)
    assert found == 2 * len(ki.iterated_blocks(net.model))


@pytest.mark.parametrize("kind", NETS)
def test_the_file_is_sound(nets, kind):
    net = nets(kind)
    onnx.checker.check_model(onnx.load(net.path), full_check=True)
    versions = {entry.domain: entry.version for entry in net.converted.opset_import}
    assert versions[""] >= 18
    inputs = net.session.get_inputs()
    assert [(i.name, i.type, i.shape[1:]) for i in inputs] == [
        ("image", "tensor(float)", [8, 8, 1])
    ]
    assert not isinstance(inputs[0].shape[0], int)
    optional = {i.name: (i.type, i.shape) for i in net.session.get_overridable_initializers()}
    adaptive = kind in ADAPTIVE
    expected = {"threshold": ("tensor(float)", []), "max_unroll": ("tensor(int32)", [])}
    assert {k: v for k, v in optional.items() if k in expected} == (expected if adaptive else {})
    untied = {"untied": {"most_updates": "3"}, "untied_adaptive": {"most_updates": "6"}}
    said = net.session.get_modelmeta().custom_metadata_map
    assert said == {**METADATA, **untied.get(kind, {})}
    assert net.session.get_modelmeta().producer_name == "keras_iterconv"


def test_the_classifier_takes_it(make_model, preprocessing, draw_raw, tmp_path):
    name, settings = NETS["adaptive"]
    model = make_model(name, **settings)
    onnx.save(to_onnx(fold(model), preprocessing, {**METADATA, **DEFAULTS}), tmp_path / "net.onnx")
    classifier = OnnxClassifier(tmp_path / "net.onnx")
    assert (classifier.threshold, classifier.max_unroll) == (0.05, 10)
    answers = classifier.classify(draw_raw(5))._asdict()
    assert_same_predictions(answers, ki.with_depth(model)((draw_raw(5) - 3) / 2))


def test_an_untied_net_makes_no_more_updates_than_it_has_weights_for(
    make_model, preprocessing, draw_raw, tmp_path
):
    name, settings = NETS["untied_adaptive"]
    metadata = {**METADATA, "threshold": "0.3", "max_unroll": "6"}
    onnx.save(
        to_onnx(fold(make_model(name, **settings)), preprocessing, metadata), tmp_path / "net.onnx"
    )
    classifier = OnnxClassifier(tmp_path / "net.onnx")
    assert classifier.classify(draw_raw(2), threshold=0, max_unroll=6).depth.max() == 6
    with pytest.raises(ValueError, match="must be an integer from 1 to 6"):
        classifier.classify(draw_raw(2), max_unroll=7)


def test_each_class_may_have_a_probability_of_its_own(
    nets, make_model, preprocessing, draw_raw, tmp_path
):
    model, images = nets("dense").model, draw_raw(4)
    other = Net(
        model,
        to_onnx(fold(model), preprocessing, METADATA, TASKS["label_sets"]),
        tmp_path / "net.onnx",
    )
    found = other.run(images)
    expected = 1 / (1 + np.exp(-np.float64(model((images - 3) / 2))))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-4, atol=1e-6)
    # The second conversion of this model in this process.
    np.testing.assert_array_equal(found["logits"], nets("dense").run(images)["logits"])


def test_blocks_alike_are_converted_once(nets, make_model, preprocessing, monkeypatch):
    conversions, convert = [], onnx_blocks._convert
    monkeypatch.setattr(
        onnx_blocks, "_convert", lambda block, *a: conversions.append(block) or convert(block, *a)
    )
    name, settings = NETS["adaptive"]
    longer = make_model(name, **{**settings, "blocks": 5})
    converted = to_onnx(fold(longer), preprocessing, METADATA)
    assert len(conversions) == len(CHAIN["filters"])
    grown = len(converted.SerializeToString()) - len(nets("adaptive").converted.SerializeToString())
    weights = 4 * (longer.count_params() - nets("adaptive").model.count_params())
    # The graph of a block takes 6,067 bytes.
    assert weights < grown < weights + 6 * 6200


@pytest.mark.parametrize(("name", "settings"), [("nais_mnist", {}), ("resnet_w8", {"blocks": 2})])
def test_a_file_is_hardly_larger_than_its_weights(make_model, preprocessing, name, settings):
    model = make_model(name, **settings)
    size = len(to_onnx(fold(model), preprocessing, METADATA).SerializeToString())
    assert 0.95 * 4 * model.count_params() < size < 1.1 * 4 * model.count_params() + 10_000


def test_depths_that_differ_have_an_input_each(make_model, draw_raw, preprocessing):
    model = make_model("nais_adaptive", **CHAIN)
    first, *others = ki.iterated_blocks(model)
    first.max_unroll, paths = 3, [call.path for call in ki.block_calls(model)]
    converted = to_onnx(model, preprocessing, METADATA)
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [f"{kind}/{path}" for kind in ("threshold", "max_unroll") for path in paths]
    assert [part.name for part in session.get_overridable_initializers()] == names
    images = draw_raw(5, (8, 8, 1))
    feeds = {"image": images, f"max_unroll/{paths[1]}": np.array(1, np.int32)}
    others[0].max_unroll = 1
    expected = ki.with_depth(model)((images - 3) / 2)
    np.testing.assert_array_equal(session.run(["depth"], feeds)[0], expected["depth"])


def test_anderson_is_refused(make_model, preprocessing):
    settings = {"units": 24, "threshold": 0.5, "solver": "anderson", "activation": "tanh"}
    with pytest.raises(ValueError, match='or build the block with `solver="picard"`'):
        to_onnx(fold(make_model("nais_mnist", **settings)), preprocessing, METADATA)
