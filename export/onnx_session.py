"""Sessions of ONNX Runtime: a file, how many threads run it, and where."""

from collections.abc import Sequence
from typing import Any

from .model_files import ModelFileError, check_threads, one_line, read_model_file

_CPU = "CPUExecutionProvider"
# Severity of logs: fatal ones alone. Errors are raised anyway, and ONNX Runtime warns of each
# optional input in each session ("Initializer threshold appears in graph inputs ...").
_FATAL = 4


def open_session(
    path: str, threads: int = 1, spin: bool = False, providers: Sequence[str] | None = None
) -> tuple[Any, Any]:
    """Return a session of ONNX Runtime, and the options of its runs.

    Args:
        path: The `.onnx` file.
        threads: Number of threads that run an operator.
        spin: Whether threads without work wait in a loop instead of sleeping.
        providers: Names of execution providers, the preferred one first; None for the CPU.

    Raises:
        ValueError: An argument is out of range.
        ModelFileError: The file cannot be opened, or is not an ONNX model.
        ImportError: ONNX Runtime is not installed.
    """
    # Imported here, so that a command can report a missing package in one line.
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"ONNX Runtime cannot be imported ({error}): run `pip install onnxruntime`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = check_threads(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", _check_spin(spin))
    used = _check_providers(providers, onnxruntime.get_available_providers())
    content = read_model_file(path, "an ONNX")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=used)
    # ONNX Runtime's exceptions have no other common base class.
    except Exception as error:
        raise ModelFileError(
            f"{path} is not an ONNX model that ONNX Runtime can load: {one_line(error)}"
        ) from error
    return session, onnxruntime.RunOptions()


def _check_spin(spin: bool) -> str:
    if not isinstance(spin, bool):
        raise ValueError(f"`spin` must be True or False. Received: spin={spin!r}")
    return str(int(spin))


def _check_providers(providers: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    if providers is None:
        return [_CPU]
    names = [] if isinstance(providers, str) else list(providers)
    # ONNX Runtime only warns of a provider that it lacks, and then runs on the CPU.
    if not names or any(name not in available for name in names):
        raise ValueError(
            f"`providers` must be a list of execution providers, of {list(available)} in this "
            f"installation of ONNX Runtime. Received: providers={providers!r}"
        )
    return names
