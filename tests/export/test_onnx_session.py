"""How ONNX Runtime runs a file: threads, providers, nothing printed; files with fixed inputs."""

import numpy as np
import onnx
import onnxruntime
import pytest

from export.classifier import OnnxClassifier
from export.onnx_session import open_session

CPU = "CPUExecutionProvider"


def test_by_default_one_thread_runs_on_the_cpu(adaptive_net):
    session, _ = open_session(adaptive_net)
    options = session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == [CPU]


def test_the_session_has_the_given_settings(adaptive_net):
    session, _ = open_session(adaptive_net, np.int64(2), True, (CPU,))
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"


@pytest.mark.parametrize("given", [{"threads": 2}, {"threads": 2, "spin": True}])
def test_threads_do_not_change_the_answers(adaptive_net, draw_images, expected, given):
    images = draw_images(True)
    found = OnnxClassifier(adaptive_net, **given).classify(images)
    for one, other in zip(found, expected(images, True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *(
            ("threads", value, "an integer of at least 1")
            for value in (0, -1, 1.0, True, "2", None)
        ),
        *(("spin", value, "True or False") for value in (1, "no", None)),
        *(("providers", value, rf"a list of .*'{CPU}'") for value in (CPU, [], ["NoProvider"])),
        ("providers", [CPU, "NoProvider"], "a list of execution providers"),
    ],
)
def test_settings_that_cannot_be(adaptive_net, name, value, said):
    with pytest.raises(ValueError, match=rf"`{name}` must be {said}.*Received: {name}=") as raised:
        OnnxClassifier(adaptive_net, **{name: value})
    assert str(raised.value).endswith(f"{name}={value!r}")


def test_nothing_is_printed(adaptive_net, draw_images, capfd):
    # ONNX Runtime itself warns of each optional input, on the file descriptor of errors.
    onnxruntime.InferenceSession(adaptive_net, providers=[CPU])
    assert "threshold appears in graph inputs" in capfd.readouterr().err
    OnnxClassifier(adaptive_net).classify(draw_images(True), threshold=0.5)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def fixed_inputs(build_net, tmp_path):
    """Return a file of adaptive depth whose settings are constants."""
    net = build_net(True)
    del net.graph.input[1:]
    onnx.save(net, tmp_path / "baked.onnx")
    return tmp_path / "baked.onnx"


def test_a_file_with_fixed_inputs_answers_at_its_own_depth(fixed_inputs, draw_images, expected):
    classifier = OnnxClassifier(fixed_inputs)
    assert (classifier.adaptive, classifier.settable) == (True, False)
    assert (classifier.threshold, classifier.max_unroll) == (1.0, 20)
    images = draw_images(True)
    for one, other in zip(classifier.classify(images), expected(images, True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{"threshold": 0.5}, {"max_unroll": 3}])
def test_the_depth_of_a_file_with_fixed_inputs_cannot_be_chosen(fixed_inputs, draw_images, given):
    ((name, value),) = given.items()
    said = rf"`{name}` must be left out: .*fixed inputs, threshold 1 and max_unroll 20.*={value}$"
    with pytest.raises(ValueError, match=said):
        OnnxClassifier(fixed_inputs).classify(draw_images(True), **given)


def test_a_file_with_required_inputs_has_the_defaults_of_its_metadata(
    build_net, draw_images, expected, tmp_path
):
    net = build_net(True)
    kept = [z for z in net.graph.initializer if z.name not in ("threshold", "max_unroll")]
    del net.graph.initializer[:]
    net.graph.initializer.extend(kept)
    onnx.save(net, tmp_path / "net.onnx")
    classifier, images = OnnxClassifier(tmp_path / "net.onnx"), draw_images(True)
    assert (classifier.adaptive, classifier.settable) == (True, True)
    for given in ({}, {"threshold": 0.3}, {"max_unroll": 3}):
        found = classifier.classify(images, **given)
        for one, other in zip(found, expected(images, True, **given), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_settings_of_single_blocks_cannot_be_chosen(build_net, draw_images, tmp_path):
    net = build_net(False)
    onnx.helper.set_model_props(
        net, {prop.key: prop.value for prop in net.metadata_props} | {"threshold/block": "0.1"}
    )
    onnx.save(net, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="`threshold` must be left out: this class sets one depth"):
        OnnxClassifier(tmp_path / "net.onnx").classify(draw_images(False), threshold=0.5)
