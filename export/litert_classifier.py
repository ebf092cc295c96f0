"""Classification with an exported model in LiteRT, without TensorFlow."""

import contextlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from .file_classifier import OUTPUTS, FileClassifier, FileFacts, TensorFacts
from .model_files import ModelFileError, check_threads, one_line, read_model_file

# The file in the archive at the end of a LiteRT file, and its largest size in bytes.
METADATA_FILE = "keras_iterconv.json"
_LARGEST_METADATA = 2**24
SIGNATURE, DEPTH_SIGNATURE = "serving_default", "with_depth"


class LiteRTClassifier(FileClassifier):
    """A classifier that runs an exported model in LiteRT, on the CPU.

    Its attributes are those of `FileClassifier`.

    Args:
        path: The `.tflite` file.
        threads: Number of threads that run an operator.

    Raises:
        ValueError: `threads` is out of range.
        ModelFileError: The file is missing, is not a LiteRT model, or was not exported by
            keras_iterconv.
        ImportError: LiteRT is not installed.

    Example:
        >>> classifier = LiteRTClassifier("animals.tflite")
        >>> predictions = classifier.classify(images, max_unroll=5)
        >>> classifier.classes[predictions.probabilities[0].argmax()]
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        path = os.fspath(path)
        content = read_model_file(path, "a LiteRT")
        self._interpreter = _open_interpreter(path, content, check_threads(threads))
        signatures = self._interpreter.get_signature_list()
        # A runner does not keep its interpreter alive.
        self._runners = {
            name: self._interpreter.get_signature_runner(name)
            for name in (SIGNATURE, DEPTH_SIGNATURE)
            if name in signatures
        }
        inputs, outputs = {}, {}
        if SIGNATURE in self._runners:
            inputs = _facts_of(self._runners[SIGNATURE].get_input_details())
            outputs = _facts_of(self._runners[SIGNATURE].get_output_details())
        settable = signatures.get(DEPTH_SIGNATURE, {"inputs": []})["inputs"]
        optional = [name for name in settable if name not in inputs]
        super().__init__(path, FileFacts(_read_metadata(content), inputs, outputs, optional))

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        signature = SIGNATURE
        if len(feeds) > 1:
            # LiteRT has no optional inputs.
            signature = DEPTH_SIGNATURE
            own = {
                "threshold": np.array(self.threshold, np.float32),
                "max_unroll": np.array(self.max_unroll, np.int32),
            }
            feeds = {**own, **feeds}
        outputs = self._runners[signature](**feeds)
        return [outputs[name] for name in OUTPUTS]

    def stop(self) -> None:
        """Do nothing: LiteRT has no way to stop a run, which ends after its batch."""


def _open_interpreter(path: str, content: bytes, threads: int) -> Any:
    # Imported here, so that a command can report a missing package in one line.
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            f"LiteRT cannot be imported ({error}): run `pip install ai-edge-litert`"
        ) from error
    try:
        with _without_logs():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            # Here it makes its delegate, and announces it.
            interpreter.allocate_tensors()
            return interpreter
    # LiteRT raises several kinds of errors.
    except Exception as error:
        raise ModelFileError(
            f"{path} is not a LiteRT model that LiteRT can load: {one_line(error)}"
        ) from error


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Drop what C++ code writes to the error stream; LiteRT announces each delegate there."""
    try:
        kept = os.dup(2)
    except OSError:
        # The stream is closed.
        yield
        return
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _facts_of(details: dict[str, dict]) -> dict[str, TensorFacts]:
    """Return the facts of tensors, whose free sizes are -1 in LiteRT."""
    return {
        name: TensorFacts(
            np.dtype(part["dtype"]).name,
            [int(size) if size >= 0 else None for size in part["shape_signature"]],
        )
        for name, part in details.items()
    }


def _read_metadata(content: bytes) -> dict[str, str]:
    """Return the metadata in the archive at the end of a file; none without such an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(METADATA_FILE) as file:
            found = json.loads(file.read(_LARGEST_METADATA))
    # A damaged archive raises many kinds of errors. What is missing is reported later.
    except Exception:
        return {}
    fits = isinstance(found, dict) and all(isinstance(text, str) for text in found.values())
    return found if fits else {}
