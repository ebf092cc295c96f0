"""Quantisation of exported ONNX files from user code: `quantize_onnx`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_iterconv._support.files import replacing
from keras_iterconv.exporting.export_functions import check_file
from keras_iterconv.exporting.quantization_report import QuantizationReport


def quantize_onnx(
    path: str | os.PathLike, quantized_path: str | os.PathLike, batches: Iterable[Any]
) -> QuantizationReport:
    """Write an exported ONNX file once more, with its weights as 8-bit integers.

    The file has the inputs and outputs of the first one and about 30% of its size. It computes in
    float32, from weights that are integers times constant scales, so that the depth and the outputs
    of a sample do not depend on its batch. States and the norms that stop them are not rounded. All
    stopping thresholds are multiplied by one factor, such that the mean number of updates on the
    calibration batches is as near as possible to that of the first file.

    Args:
        path: A file that `export_onnx` or `python -m export.publish` has written.
        quantized_path: The file to write; an existing one is replaced.
        batches: Inputs of some hundred samples, best of training data: an iterable of arrays
            `[N, ...]`; of a list, or of a dictionary by name, for a model of several inputs.

    Returns:
        The sizes of both files, the mean updates of both, and the thresholds.

    Raises:
        ValueError: `path` is no ONNX file, there is no batch, or a batch does not fit the inputs.
        ImportError: The packages of the extra `export` are not installed.
        OSError: A file could not be read or written.

    Example:
        >>> block = ki.NAISDense(64, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), block, keras.layers.Dense(2)])
        >>> ki.export_onnx(model, "net.onnx")
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> report = ki.quantize_onnx("net.onnx", "net_int8.onnx", [x])
        >>> report.size < 0.6, abs(report.updates / report.float_updates - 1) < 0.1
        (True, True)

    See also:
        `export_onnx`, which writes the first file; `QuantizationReport`.
    """
    try:
        import onnx

        from keras_iterconv.exporting.int8_model import quantize
    except ImportError as error:
        raise ImportError(
            f'{error}: quantisation needs `pip install "keras-iterconv[export]"`'
        ) from error
    target, content = check_file(quantized_path), Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    # Protocol buffers have an error of their own, whose package has no types.
    except Exception as error:
        raise ValueError(
            f"`path` must be an ONNX file. Received: path={os.fspath(path)!r}, which cannot be "
            f"read as one: {error}"
        ) from error
    quantized, report = quantize(model, batches)
    with replacing(target) as partial:
        onnx.save(quantized, partial)
    return report
