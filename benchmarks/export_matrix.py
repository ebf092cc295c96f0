"""Which nets can be exported to which formats: `python -m benchmarks.export_matrix`."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv.depth.depth_settings import (
    DepthSettings,
    adjustable_blocks,
    apply_settings,
    read_settings,
)
from keras_iterconv.exporting.saved_model import DEPTH_SIGNATURE, SIGNATURE

SHAPE = (6, 5, 3)
CHANNELS = 6
BATCHES = (1, 7, 64)
# A depth that is given at run time.
OTHER = DepthSettings(max_unroll=3, threshold=0.9)
# A cell of values, depths and statuses like those of Keras.
YES = "yes"


def _conv(name: str = "block", **settings: Any) -> keras.layers.Layer:
    return ki.NAISConv2D(CHANNELS, step_size=0.5, name=name, **settings)


def _pooled(*layers: keras.layers.Layer) -> list[keras.layers.Layer]:
    return [*layers, keras.layers.GlobalAveragePooling2D()]


def _halting() -> keras.layers.Layer:
    weights = {"kernel_initializer": keras.initializers.RandomNormal(stddev=1.5)}
    stop = ki.stop.Halting(keras.layers.Dense(1, **weights), threshold=0.7)
    update = keras.layers.Dense(CHANNELS, activation="tanh", **weights)
    return ki.Iterate(update, max_unroll=9, stop=stop, name="block")


# Functions that return the layers between a convolution and the classes.
BLOCKS: dict[str, Callable[[], list[keras.layers.Layer]]] = {
    "NAISDense": lambda: [
        *_pooled(),
        ki.NAISDense(CHANNELS, max_unroll=8, threshold=0.02, name="block"),
    ],
    "NAISConv2D, fixed": lambda: _pooled(_conv(max_unroll=4)),
    "NAISConv2D, adaptive": lambda: _pooled(_conv(max_unroll=9, threshold=0.6)),
    "NAISConv2D, untied": lambda: _pooled(_conv(max_unroll=5, threshold=0.6, tied=False)),
    "ResidualStage, capped": lambda: _pooled(
        ki.ResidualStage(CHANNELS, blocks=3, lipschitz_cap=0.9, name="block")
    ),
    "Iterate, Halting": lambda: [*_pooled(), _halting()],
    "two thresholds": lambda: _pooled(
        _conv("first", max_unroll=9, threshold=0.6), _conv("second", max_unroll=7, threshold=0.3)
    ),
}


@keras.saving.register_keras_serializable("benchmarks")
class SubclassedNet(ki.IterativeModel):
    """A net whose layers only its own Python code calls."""

    def __init__(self, layers: Sequence[keras.layers.Layer]):
        super().__init__()
        self.parts = list(layers)

    def call(self, images: Any) -> Any:
        for layer in self.parts:
            images = layer(images)
        return images


def _functional(layers: Sequence[keras.layers.Layer]) -> keras.Model:
    inputs = keras.Input(SHAPE, name="images")
    x = inputs
    for layer in layers:
        x = layer(x)
    return ki.IterativeModel(inputs, x)


def _sequential(layers: Sequence[keras.layers.Layer]) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE, name="images"), *layers])


def _subclassed(layers: Sequence[keras.layers.Layer]) -> keras.Model:
    model = SubclassedNet(layers)
    model(np.zeros((1, *SHAPE), np.float32))
    return model


def _nested(layers: Sequence[keras.layers.Layer]) -> keras.Model:
    inputs = keras.Input(SHAPE, name="images")
    x = keras.layers.Rescaling(1.0)(inputs)
    backbone = keras.Sequential([keras.Input(SHAPE), *layers[:-1]], name="backbone")
    return keras.Model(inputs, layers[-1](_functional([backbone])(x)))


KINDS = {
    "functional": _functional,
    "Sequential": _sequential,
    "subclassed": _subclassed,
    "nested": _nested,
}


def make_net(kind: str, block: str) -> keras.Model:
    """Return a net of a kind of model and of block, with random weights."""
    keras.utils.set_random_seed(1)
    first = keras.layers.Conv2D(CHANNELS, 3, padding="same")
    return KINDS[kind]([first, *BLOCKS[block](), keras.layers.Dense(4)])


def draw_images(count: int) -> np.ndarray:
    """Return images of different scales, so that their depths differ."""
    images = np.random.default_rng(count).normal(size=(count, *SHAPE))
    return (images * np.geomspace(4, 0.1, count)[:, None, None, None]).astype(np.float32)


class _Onnx:
    """An ONNX file, run by ONNX Runtime."""

    def __init__(self, model: keras.Model, folder: Path):
        # Imported here, so that the other formats run without it.
        import onnxruntime

        ki.export_onnx(model, folder / "net.onnx")
        options = onnxruntime.SessionOptions()
        # It warns of each optional input.
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / "net.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._names = [part.name for part in self._session.get_outputs()]

    def __call__(self, images: np.ndarray, depth: dict[str, np.ndarray]) -> dict[str, Any]:
        found = self._session.run(
            self._names, {self._session.get_inputs()[0].name: images, **depth}
        )
        return dict(zip(self._names, found, strict=True))


class _SavedModel:
    """A SavedModel, run by TensorFlow."""

    def __init__(self, model: keras.Model, folder: Path):
        ki.export_saved_model(model, folder / "net")
        self._signatures = tf.saved_model.load(folder / "net").signatures

    def __call__(self, images: np.ndarray, depth: dict[str, np.ndarray]) -> dict[str, Any]:
        run = self._signatures[DEPTH_SIGNATURE if depth else SIGNATURE]
        depth = {name.replace("/", "_"): tf.constant(value) for name, value in depth.items()}
        name = next(name for name in run.structured_input_signature[1] if name not in depth)
        return run(**{name: tf.constant(images)}, **depth)


class _LiteRT:
    """A LiteRT file, run by `ai-edge-litert`."""

    def __init__(self, model: keras.Model, folder: Path):
        from ai_edge_litert.interpreter import Interpreter

        ki.export_litert(model, folder / "net.tflite")
        self._interpreter = Interpreter(str(folder / "net.tflite"))

    def __call__(self, images: np.ndarray, depth: dict[str, np.ndarray]) -> dict[str, Any]:
        run = self._interpreter.get_signature_runner(DEPTH_SIGNATURE if depth else SIGNATURE)
        depth = {name.replace("/", "_"): value for name, value in depth.items()}
        (name,) = set(run.get_input_details()) - set(depth)
        return run(**{name: images}, **depth)


FORMATS: dict[str, Callable] = {"ONNX": _Onnx, "SavedModel": _SavedModel, "LiteRT": _LiteRT}


def other_depth(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the inputs of a file that set another depth; none for a net of fixed depth."""
    calls = [call for call in ki.block_calls(model) if call.block.threshold is not None]
    shared = len({(call.block.max_unroll, call.block.threshold) for call in calls}) == 1
    suffixes = [""] if shared else [f"/{call.path}" for call in calls]
    return {
        f"{name}{suffix}": np.array(value, dtype)
        for suffix in suffixes
        for name, value, dtype in (
            ("threshold", OTHER.threshold, np.float32),
            ("max_unroll", OTHER.max_unroll, np.int32),
        )
    }


def check(model: keras.Model, format: str, folder: Path) -> str:
    """Return `"yes"` where a file answers as Keras does, else the reason why there is none.

    Raises:
        AssertionError: Values, depths or statuses differ.
    """
    try:
        run = FORMATS[format](model, folder)
    except ValueError as error:
        return " ".join(str(error).split())
    with_depth = ki.with_depth(model)
    _compare(run, {}, with_depth)
    given = other_depth(model)
    if given:
        blocks = adjustable_blocks(model)
        before = read_settings(blocks)
        try:
            apply_settings(blocks, [OTHER] * len(blocks))
            _compare(run, given, with_depth)
        finally:
            apply_settings(blocks, before)
    return YES


def _compare(run: Callable, given: dict[str, np.ndarray], with_depth: keras.Model) -> None:
    for count in BATCHES:
        images = draw_images(count)
        found, expected = run(images, given), with_depth(images)
        for name in ("depth", "status"):
            np.testing.assert_array_equal(found[name], expected[name])
        (key,) = set(expected) - {"depth", "status"}
        right = expected[key].numpy()
        atol = 1e-4 * float(np.abs(right).max())
        np.testing.assert_allclose(np.asarray(found[key]), right, rtol=1e-4, atol=atol)


def export_matrix(
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Export each kind of block in each kind of model to each format, and compare with Keras.

    Values agree within 1e-4 of the largest, depths and statuses are equal, for 1, 7 and 64 images,
    with the settings of the model and with others given at run time.
    """
    lines, content = [], {}
    for block in BLOCKS:
        for format in FORMATS:
            row = {}
            for kind in KINDS:
                with tempfile.TemporaryDirectory() as folder:
                    row[kind] = check(make_net(kind, block), format, Path(folder))
                keras.backend.clear_session()
            content[f"{block}, {format}"] = row
            lines.append([block, format, *row.values()])
    show(
        export_matrix.__doc__ or "", ["block", "format", *KINDS], lines, {"cells": content}, output
    )


app = make_command_app(export_matrix)

if __name__ == "__main__":
    app()
