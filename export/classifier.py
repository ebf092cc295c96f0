"""Classification with an exported model in ONNX Runtime, without TensorFlow."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .file_classifier import OUTPUTS, FileClassifier, FileFacts, Predictions, TensorFacts
from .model_files import ModelFileError
from .onnx_session import open_session

__all__ = ["ModelFileError", "OnnxClassifier", "Predictions"]

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class OnnxClassifier(FileClassifier):
    """A classifier that runs an exported model in ONNX Runtime.

    Args:
        path: The `.onnx` file.
        threads: Number of threads that run an operator.
        spin: Whether threads without work wait in a loop instead of sleeping. They then start
            sooner, and use the whole processor while the classifier runs.
        providers: Names of ONNX Runtime's execution providers, the preferred one first; None for
            the CPU alone.

    Its attributes are those of `FileClassifier`.

    Raises:
        ValueError: `threads`, `spin` or `providers` is out of range.
        ModelFileError: The file is missing, is not an ONNX model, or was not exported by
            keras_iterconv.
        ImportError: ONNX Runtime is not installed.

    Example:
        >>> classifier = OnnxClassifier("nais_adaptive.onnx")
        >>> predictions = classifier.classify(images, max_unroll=5)
        >>> classifier.classes[predictions.probabilities[0].argmax()]
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 1,
        spin: bool = False,
        providers: Sequence[str] | None = None,
    ):
        path = os.fspath(path)
        self._session, self._run_options = open_session(path, threads, spin, providers)
        session = self._session
        facts = FileFacts(
            session.get_modelmeta().custom_metadata_map,
            {part.name: _facts_of(part) for part in session.get_inputs()},
            {part.name: _facts_of(part) for part in session.get_outputs()},
            [part.name for part in session.get_overridable_initializers()],
        )
        super().__init__(path, facts)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(list(OUTPUTS), feeds, self._run_options)

    def stop(self) -> None:
        """Stop a run in another thread after its current operator; later runs fail too."""
        self._run_options.terminate = True


def _facts_of(part: Any) -> TensorFacts:
    return TensorFacts(_DTYPES.get(part.type, part.type), part.shape)
