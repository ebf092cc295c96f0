"""Predictions of exported nets against NumPy, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.classifier import ModelFileError
from export.predict import OnnxClassifier

KINDS = pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive", "fixed"])


def assert_answers(answers, expected):
    for name, found, right in zip(answers._fields, answers, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5, err_msg=name)
    kinds = [part.dtype for part in answers]
    assert kinds == [np.float32, np.float32, np.int32, np.int32]


@KINDS
def test_answers_are_those_of_numpy(net_files, draw_images, expected, adaptive):
    images = draw_images(adaptive)
    answers = OnnxClassifier(net_files[adaptive]).classify(images)
    assert_answers(answers, expected(images, adaptive))
    assert set(answers.status.ravel()) == ({0, 1} if adaptive else {1})


@pytest.mark.parametrize(
    ("threshold", "max_unroll"),
    [(0.3, None), (None, 3), (2, 7), (np.float32(5), np.int64(1)), (0, 50), (1e-3, 2**31 - 1)],
)
def test_threshold_and_limit_are_those_given(
    adaptive_net, draw_images, expected, threshold, max_unroll
):
    images = draw_images(True)
    answers = OnnxClassifier(adaptive_net).classify(images, threshold, max_unroll)
    given = {"threshold": threshold, "max_unroll": max_unroll}
    given = {name: value for name, value in given.items() if value is not None}
    assert_answers(answers, expected(images, True, **given))


@KINDS
def test_what_it_says_of_the_net(net_files, adaptive):
    net = OnnxClassifier(str(net_files[adaptive]))
    assert (net.adaptive, net.settable) == (adaptive, adaptive)
    if adaptive:
        assert (net.input_shape, net.scale) == ((4, 6, 1), 16.0)
        assert net.classes == ("night", "dusk", "noon", "snow")
        assert (net.threshold, net.max_unroll) == (1.0, 20)
    else:
        assert (net.input_shape, net.scale) == ((3, 5, 3), 255.0)
        assert net.classes == ("red", "green", "blue")
        assert (net.threshold, net.max_unroll) == (None, None)
    assert net.metadata["license"] == "Apache-2.0"
    assert json.loads(net.metadata["result"]) == {"test_accuracy": 0.9}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64])
def test_dtypes_of_images(fixed_net, draw_images, expected, dtype):
    images = draw_images(False).astype(dtype)
    before = images.copy()
    assert_answers(OnnxClassifier(fixed_net).classify(images), expected(images, False))
    np.testing.assert_array_equal(images, before)


@KINDS
def test_no_images_give_empty_answers(net_files, draw_images, adaptive):
    net = OnnxClassifier(net_files[adaptive])
    some, none = net.classify(draw_images(adaptive)), net.classify(draw_images(adaptive)[:0])
    for one, other in zip(some, none, strict=True):
        assert other.shape == (0, *one.shape[1:])
        assert other.dtype == one.dtype


def test_no_images_for_a_net_that_needs_one(build_net, draw_images, tmp_path):
    net = build_net(True)
    # It reads the first image; a loop over no images is as fragile.
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "zero"))
    net.graph.node.insert(0, onnx.helper.make_node("Gather", ["image", "zero"], ["first"], axis=0))
    net.graph.node.insert(1, onnx.helper.make_node("Mul", ["image", "first"], ["product"]))
    next(node for node in net.graph.node if node.op_type == "Div").input[0] = "product"
    onnx.save(net, tmp_path / "net.onnx")
    answers = OnnxClassifier(tmp_path / "net.onnx").classify(draw_images(True)[:0])
    assert [part.shape for part in answers] == [(0, 4), (0, 4), (0, 2), (0, 2)]


def test_an_answer_that_is_not_finite_says_so(adaptive_net, draw_images, expected):
    images = draw_images(True)
    images[2] = 0
    answers = OnnxClassifier(adaptive_net).classify(images)
    rest = np.arange(len(images)) != 2
    assert (answers.status[2] == 2).all()
    assert not np.isfinite(answers.probabilities[2]).any()
    assert_answers(type(answers)(*(part[rest] for part in answers)), expected(images[rest], True))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda images: images[..., [0, 0, 0]], r"\[N, 4, 6, 1\].* \[7, 4, 6, 3\]"),
        (lambda images: images.transpose(0, 2, 1, 3), r"\[N, 4, 6, 1\].* \[7, 6, 4, 1\]"),
        (lambda images: images[0], r"\[N, 4, 6, 1\].* \[4, 6, 1\]"),
        (lambda images: [], r"\[N, 4, 6, 1\].* \[0\]"),
        (lambda images: images.astype(str), "`images` must be floats or integers.*<U"),
        (lambda images: images > 3, "`images` must be floats or integers.*bool"),
        (lambda images: images + 1j, "`images` must be floats or integers.*complex"),
        (lambda images: images * 1e300, r"`images` must be finite.*images\[0\] and in 6 more"),
    ],
)
def test_images_that_do_not_fit(adaptive_net, draw_images, spoil, said):
    net = OnnxClassifier(adaptive_net)
    with pytest.raises(ValueError, match=said):
        net.classify(spoil(draw_images(True).astype(np.float64)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_image_that_is_not_finite_is_named(adaptive_net, draw_images, value):
    images = draw_images(True)
    images[5, 1, 2, 0] = value
    with pytest.raises(ValueError, match=r"`images` must be finite .*pixels in images\[5\]$"):
        OnnxClassifier(adaptive_net).classify(images)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", value) for value in (-1, -1e-9, np.nan, np.inf, 1e39, True, "1", 1j)]
    + [("max_unroll", value) for value in (0, -3, 2.5, 2.0, np.nan, True, "3", 2**31)],
)
def test_depths_that_cannot_be(adaptive_net, draw_images, name, value):
    for images in (draw_images(True), draw_images(True)[:0]):
        with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}=") as raised:
            OnnxClassifier(adaptive_net).classify(images, **{name: value})
        assert str(raised.value).endswith(f"{name}={value!r}")


@pytest.mark.parametrize("given", [{"threshold": 0.5}, {"max_unroll": 3}])
def test_a_fixed_depth_cannot_be_chosen(fixed_net, draw_images, given):
    with pytest.raises(
        ValueError, match=rf"`{next(iter(given))}` must be left out.*fixed.*Received"
    ):
        OnnxClassifier(fixed_net).classify(draw_images(False), **given)


def without(name):
    def spoil(net):
        kept = [entry for entry in net.metadata_props if entry.key != name]
        del net.metadata_props[:]
        net.metadata_props.extend(kept)

    return spoil


def saying(name, value):
    def spoil(net):
        next(entry for entry in net.metadata_props if entry.key == name).value = value

    return spoil


def renaming(old, new):
    def spoil(net):
        for part in (*net.graph.input, *net.graph.output):
            if part.name == old:
                part.name = new
        for node in net.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    return spoil


def without_threshold(net):
    del net.graph.input[1]


def any_channels(net):
    net.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "channels"


def depth_in_floats(net):
    next(node for node in net.graph.node if node.output[0] == "depth").attribute[0].i = 1
    output = next(output for output in net.graph.output if output.name == "depth")
    output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        *((without(name), f"its metadata lacks `{name}`") for name in ("model", "dataset")),
        *((without(name), f"its metadata lacks `{name}`") for name in ("classes", "scale")),
        *((without(name), f"its metadata lacks `{name}`") for name in ("threshold", "max_unroll")),
        (saying("classes", "night"), "`classes` in its metadata must be a list of names"),
        (saying("classes", "[1, 2, 3, 4]"), "`classes` in its metadata must be a list of names"),
        (saying("classes", '["night", "day"]'), "it names 2 classes for 4 logits"),
        (saying("scale", "0"), "`scale` in its metadata must be a positive number"),
        (saying("scale", "NaN"), "`scale` in its metadata must be a positive number"),
        (saying("threshold", "small"), "`threshold` in its metadata must be a positive number"),
        (renaming("image", "x"), r"its inputs are \['x'\] instead of \['image'\]"),
        (renaming("status", "state"), "its output `status` is missing"),
        (depth_in_floats, "its output `depth` is float32"),
        (without_threshold, r"of the inputs of depth it has only \['max_unroll'\]"),
        (any_channels, r"`image` is .*'channels'.* instead of float32 \[N, H, W, C\]"),
    ],
)
def test_a_model_of_another_contract(build_net, tmp_path, spoil, said):
    net = build_net(True)
    spoil(net)
    onnx.save(net, tmp_path / "net.onnx")
    with pytest.raises(ModelFileError, match=said) as raised:
        OnnxClassifier(tmp_path / "net.onnx")
    assert str(raised.value).startswith(f"{tmp_path}/net.onnx is not a model that keras_iterconv")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08", None, "folder", "half"])
def test_a_file_that_is_no_model(adaptive_net, tmp_path, capfd, content):
    path = tmp_path / "net.onnx"
    if content == "half":
        content = Path(adaptive_net).read_bytes()[:1500]
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as raised:
        OnnxClassifier(path)
    assert str(raised.value).startswith(f"{path} ")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_net_that_fails_as_it_runs(build_net, draw_images, tmp_path, capfd):
    net = build_net(True)
    # It sums over a dimension that it does not have.
    reduce = next(node for node in net.graph.node if node.op_type == "ReduceSum")
    axes = next(part for part in net.graph.initializer if part.name == reduce.input[1])
    axes.CopyFrom(onnx.numpy_helper.from_array(np.array([5]), axes.name))
    onnx.save(net, tmp_path / "net.onnx")
    with pytest.raises(ModelFileError, match=r"net\.onnx") as raised:
        OnnxClassifier(tmp_path / "net.onnx").classify(draw_images(True))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_onnx_runtime_names_the_install(adaptive_net, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="run `pip install onnxruntime`"):
        OnnxClassifier(adaptive_net)
