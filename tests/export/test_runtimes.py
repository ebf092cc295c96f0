"""The table of runtimes in docs/own_export.md: what each makes of a file, against Keras."""

import re
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import helper, parser

import keras_iterconv as ki
from tests.support.runtimes import (
    LEVELS,
    ONNX_RUNTIMES,
    OTHER_RUNTIMES,
    in_onnxruntime,
    optimised,
)

PAGE = Path(__file__).parents[2] / "docs/own_export.md"
BATCHES = (1, 7, 64)
SETTINGS = {"threshold": 0.3, "max_unroll": 9}
OTHER = {"threshold": 0.9, "max_unroll": 4}
KINDS = {"threshold": np.float32, "max_unroll": np.int32}
# ONNX Runtime packs eight channels for its fastest convolutions.
CHANNELS = 8


def draw_images(count):
    images = np.random.default_rng(count).normal(size=(count, 6, 6, 3))
    return (images * np.geomspace(3, 0.1, count)[:, None, None, None]).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """Return a net of each kind of loop, all of one threshold."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 3), name="images")
    x = keras.layers.Conv2D(CHANNELS, 3, padding="same")(images)
    x = ki.NAISConv2D(CHANNELS, step_size=0.5, **SETTINGS)(x)
    x = ki.NAISConv2D(CHANNELS, step_size=0.5, tied=False, **SETTINGS)(x)
    x = ki.ResidualStage(CHANNELS, blocks=2, lipschitz_cap=0.9)(x)
    update = keras.layers.Dense(CHANNELS, activation="tanh")
    update = ki.Iterate(update, stop=SETTINGS["threshold"], max_unroll=SETTINGS["max_unroll"])
    x = update(keras.layers.GlobalAveragePooling2D()(x))
    return ki.IterativeModel(images, keras.layers.Dense(4)(x))


@pytest.fixture(scope="module")
def expected(model):
    """Return what Keras says, by the number of images and whether the depth is another one."""
    said = {}
    for other, settings in ((False, SETTINGS), (True, OTHER)):
        ki.set_depth(model, **settings)
        for count in BATCHES:
            outputs = ki.with_depth(model)(draw_images(count))
            said[count, other] = {name: z.numpy() for name, z in outputs.items()}
    ki.set_depth(model, **SETTINGS)
    assert (said[64, True]["depth"] != said[64, False]["depth"]).any(axis=0).sum() == 3
    return said


def as_arrays(settings):
    return {name: np.array(value, KINDS[name]) for name, value in settings.items()}


def differs(run, expected, other, depth):
    """Return in what the outputs differ from those of Keras: "answers" and "depth"."""
    found = set()
    for count in BATCHES:
        outputs, right = run(draw_images(count), as_arrays(depth)), expected[count, other]
        atol = 1e-4 * np.abs(right["logits"]).max()
        if not np.allclose(outputs["logits"], right["logits"], rtol=1e-4, atol=atol):
            found.add("answers")
        if any((np.asarray(outputs[name]) != right[name]).any() for name in ("depth", "status")):
            found.add("depth")
    return found


def sets_depth(open_file, expected, needs):
    """Return whether another depth can be given, and is then that of Keras.

    Args:
        needs: Whether the defaults must be given too.
    """
    # Each runtime has errors of its own.
    try:
        run = open_file()
        return not differs(run, expected, True, OTHER) and not (
            needs and differs(run, expected, False, SETTINGS)
        )
    except Exception:
        return False


def documented(name):
    """Return the last three cells of a row."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", PAGE.read_text(), re.M)
    version, *cells = (cell.strip() for cell in row.split("|"))
    assert version
    return cells


def cells_of(run, expected, settable):
    said = differs(run, expected, False, {})
    return ["no" if part in said else "yes" for part in ("answers", "depth")] + [settable]


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Return the ONNX files by the kind of their inputs."""
    folder = tmp_path_factory.mktemp("files")
    paths = {inputs: folder / f"{inputs}.onnx" for inputs in ("settable", "required")}
    for inputs, path in paths.items():
        ki.export_onnx(model, path, inputs=inputs)
    return paths


@pytest.mark.parametrize("name", ONNX_RUNTIMES)
def test_a_runtime_of_onnx_files(files, expected, name):
    open_file, settable = ONNX_RUNTIMES[name], "no"
    run = open_file(files["settable"])
    if sets_depth(lambda: run, expected, False):
        settable = "yes"
    elif sets_depth(lambda: open_file(files["required"]), expected, True):
        settable = '`inputs="required"`'
    assert documented(name) == cells_of(run, expected, settable)


@pytest.mark.parametrize("name", OTHER_RUNTIMES)
def test_a_runtime_of_other_files(model, expected, tmp_path, name):
    run = OTHER_RUNTIMES[name](model, tmp_path)
    settable = "yes" if sets_depth(lambda: run, expected, False) else "no"
    assert documented(name) == cells_of(run, expected, settable)


def test_the_table_has_no_other_runtimes():
    table = PAGE.read_text().partition("\n## Runtimes\n")[2].partition("\n\n- ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.M)
    tested = [*ONNX_RUNTIMES, *OTHER_RUNTIMES]
    assert rows == ["runtime", "---", *tested]


def test_what_onnx_runtime_writes_with_all_optimisations_it_refuses(files, tmp_path):
    """Its layout of convolutions names values alike in a graph and in a loop inside.

    Where it reads the file, the docs need not name `ORT_ENABLE_EXTENDED` any more.
    """
    kernel = ", ".join(["0.1"] * 8 * 8)
    graph = parser.parse_graph(f"""
        smallest (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y)
        <bool yes = {{1}}, int64 two = {{2}}, float[8, 8, 1, 1] outer = {{{kernel}}}> {{
            start = Conv(x, outer)
            y = Loop<body = update (int64 k, bool go_on, float[1, 8, 4, 4] z)
                => (bool go_on_too, float[1, 8, 4, 4] z_new)
                <float[8, 8, 1, 1] inner = {{{kernel}}}> {{
                go_on_too = Identity(go_on)
                z_new = Conv(z, inner)
            }}>(two, yes, start)
        }}""")
    smallest = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(smallest, full_check=True)
    onnx.save(smallest, tmp_path / "smallest.onnx")
    for path in (tmp_path / "smallest.onnx", files["settable"]):
        optimised(LEVELS.ORT_ENABLE_EXTENDED)(path)
        with pytest.raises(Exception, match="'reorder_token_0' has been used as output names"):
            optimised(LEVELS.ORT_ENABLE_ALL)(path)


@pytest.fixture
def plain_model():
    """Return a `keras.Model` of an adaptive block, which has Keras's own `export`."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 3), name="images")
    x = ki.NAISConv2D(3, step_size=0.5, **SETTINGS)(images)
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    # Keras exports to ONNX what was called.
    model(draw_images(1))
    return model


def test_what_keras_itself_exports_to_a_saved_model(plain_model, tmp_path):
    plain_model.export(tmp_path / "net", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "net")
    right = plain_model(draw_images(7))
    np.testing.assert_allclose(loaded.serve(draw_images(7)), right, rtol=1e-4, atol=1e-6)


# Keras names a type of NumPy that is gone.
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
def test_what_keras_itself_exports_to_onnx(plain_model, tmp_path):
    plain_model.export(tmp_path / "net.onnx", format="onnx", verbose=False)
    run = in_onnxruntime(tmp_path / "net.onnx")
    right = plain_model(draw_images(1))
    ((_, found),) = run(draw_images(1), {}).items()
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)
    with pytest.raises(Exception, match="while running If node"):
        run(draw_images(7), {})


def test_what_keras_itself_exports_to_litert(plain_model, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    plain_model.export(tmp_path / "net.tflite", format="litert", verbose=False)
    loaded = interpreter.Interpreter(str(tmp_path / "net.tflite"))
    with pytest.raises(RuntimeError, match="Select TensorFlow op"):
        loaded.get_signature_runner("serving_default")(images=draw_images(1))
