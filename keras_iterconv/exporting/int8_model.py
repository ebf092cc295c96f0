"""Quantisation of an exported ONNX model: weights as integers, and thresholds for equal depth."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from keras_iterconv.exporting.exported_function import THRESHOLD
from keras_iterconv.exporting.int8_weights import round_weights
from keras_iterconv.exporting.quantization_report import QuantizationReport

# The search ends where the mean updates differ by less than this share. Factors of up to
# 2 ** _DOUBLINGS on either side are tried, then the interval is halved.
_CLOSE = 0.01
_DOUBLINGS, _HALVINGS = 6, 6


def quantize(
    model: onnx.ModelProto, batches: Iterable[Any]
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Return a model with weights of 8 bits that makes as many updates as the given one.

    Args:
        model: A model that `export_onnx` or `python -m export.publish` has written.
        batches: Calibration batches, as for `keras_iterconv.quantize_onnx`.

    Returns:
        The quantised model and its report.

    Raises:
        ValueError: There is no batch, or a batch does not fit the inputs.
    """
    inputs = _inputs(model)
    feeds = [_as_feed(inputs, batch) for batch in batches]
    samples = sum(len(next(iter(feed.values()))) for feed in feeds)
    if not samples:
        raise ValueError(
            "`batches` must hold at least one sample; an iterator can be read only once. "
            "Received: no samples"
        )
    rounded = round_weights(model)
    own = _thresholds(model)
    updates = expected = None
    if any(output.name == "depth" for output in model.graph.output):
        expected = _mean_updates(model, feeds)

        def updates_at(factor: float) -> float:
            _set_thresholds(rounded, {name: _scaled(value, factor) for name, value in own.items()})
            return _mean_updates(rounded, feeds)

        factor, updates = _find_factor(updates_at, expected) if own else (1.0, updates_at(1.0))
        _set_thresholds(rounded, {name: _scaled(value, factor) for name, value in own.items()})
    report = QuantizationReport(
        bytes=rounded.ByteSize(),
        float_bytes=model.ByteSize(),
        samples=samples,
        updates=updates,
        float_updates=expected,
        thresholds=_thresholds(rounded),
        float_thresholds=own,
    )
    return rounded, report


def _inputs(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the types of the inputs that have no default, by name."""
    defaults = {constant.name for constant in model.graph.initializer}
    return {
        value.name: value.type.tensor_type
        for value in model.graph.input
        if value.name not in defaults
    }


def _as_feed(inputs: Mapping[str, onnx.TypeProto.Tensor], batch: Any) -> dict[str, np.ndarray]:
    """Return a batch as arrays by the names of the inputs, in their types."""
    names = list(inputs)
    if not isinstance(batch, Mapping):
        tensors = batch if isinstance(batch, list | tuple) else [batch]
        if len(tensors) != len(names):
            raise ValueError(
                f"A batch of `batches` must hold one array for each of the inputs {names}, and no "
                f"labels. Received: a batch of {len(tensors)}"
            )
        batch = dict(zip(names, tensors, strict=True))
    if set(batch) != set(names):
        raise ValueError(
            f"A batch of `batches` must have the names of the inputs, {names}. "
            f"Received: a batch with the names {sorted(batch)}"
        )
    return {name: _as_input(name, kind, batch[name]) for name, kind in inputs.items()}


def _as_input(name: str, kind: onnx.TypeProto.Tensor, values: Any) -> np.ndarray:
    array = np.asarray(values)
    sizes = [size.dim_value or None for size in kind.shape.dim]
    fits = array.ndim == len(sizes) and array.dtype.kind in "biuf"
    if not fits or any(n not in (None, m) for n, m in zip(sizes, array.shape, strict=True)):
        raise ValueError(
            f"A batch of `batches` must hold numbers of the shape {sizes} for the input {name!r}, "
            f"with any number where the shape has None. Received: {array.dtype} {array.shape}"
        )
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), copy=False)


def _mean_updates(model: onnx.ModelProto, feeds: Iterable[dict[str, np.ndarray]]) -> float:
    """Return the updates of a sample in all blocks together, mean over samples."""
    options = onnxruntime.SessionOptions()
    # Errors are raised anyway; that optional inputs are no constants is expected.
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    depths = [session.run(["depth"], feed)[0].sum(axis=1) for feed in feeds]
    return float(np.concatenate(depths).mean())


def _thresholds(model: onnx.ModelProto) -> dict[str, float]:
    """Return the stopping thresholds of a model by their names, in the digits of float32."""
    return {
        constant.name: float(str(numpy_helper.to_array(constant)))
        for constant in model.graph.initializer
        if constant.name.partition("/")[0] == THRESHOLD
    }


def _set_thresholds(model: onnx.ModelProto, thresholds: Mapping[str, float]) -> None:
    """Set the stopping thresholds of a model, and what its metadata says of them."""
    for constant in model.graph.initializer:
        if constant.name in thresholds:
            value = np.asarray(thresholds[constant.name], np.float32)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))
    for text in model.metadata_props:
        if text.key in thresholds:
            text.value = json.dumps(thresholds[text.key])


def _scaled(threshold: float, factor: float) -> float:
    """Return a multiple of a threshold, of three digits so that it can be read and typed."""
    return threshold if factor == 1 else float(f"{threshold * factor:.3g}")


def _find_factor(updates_at: Callable[[float], float], expected: float) -> tuple[float, float]:
    """Return the factor of all thresholds at which the updates are nearest to a number, and they.

    Updates fall with the threshold of some rules and rise with that of others.
    """
    tried: dict[float, float] = {}

    def excess(factor: float) -> float:
        tried[factor] = updates_at(factor)
        return tried[factor] / expected - 1

    first = excess(1.0)
    between = _bracket(excess, first) if abs(first) > _CLOSE else None
    if between is not None:
        inside, border = between
        for _ in range(_HALVINGS):
            middle = math.sqrt(inside * border)
            found = excess(middle)
            if abs(found) <= _CLOSE:
                break
            if found * first > 0:
                inside = middle
            else:
                border = middle
    factor = min(tried, key=lambda factor: abs(tried[factor] - expected))
    return factor, tried[factor]


def _bracket(excess: Callable[[float], float], first: float) -> tuple[float, float] | None:
    """Return two factors between which the excess of updates changes its sign.

    None where none is found, or where the excess at a factor is small enough.
    """
    for base in (2.0, 0.5):
        inside = 1.0
        for _ in range(_DOUBLINGS):
            border = inside * base
            found = excess(border)
            if abs(found) <= _CLOSE:
                return None
            if found * first < 0:
                return inside, border
            if abs(found) > abs(first):
                break
            inside = border
    return None
