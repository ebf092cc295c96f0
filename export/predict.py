"""Classify images with an exported model: `python -m export.predict net.onnx photos/`.

This command needs only NumPy, Pillow, and onnxruntime or, for a `.tflite` file, ai-edge-litert.
"""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

import numpy as np

from .classifier import ModelFileError, OnnxClassifier, Predictions
from .file_classifier import FileClassifier
from .litert_classifier import LiteRTClassifier
from .pictures import Picture, PictureError, find_pictures, read_picture
from .predictions_table import make_report
from .preparation import INVERT

__all__ = ["LiteRTClassifier", "OnnxClassifier", "main"]

# Number of images in memory at a time.
BATCH = 64

STATUS = ("converged", "max_unroll", "not_finite")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message}; see {self.prog} --help")

    def exit(self, status=0, message=None):
        # Flushed here, so that `main` handles an error of writing the help.
        print(end="", flush=True)
        super().exit(status, message)


def main(argv: Sequence[str] | None = None, program: str = "iterconv predict") -> int:
    """Run the command line.

    Args:
        argv: The arguments; None for those of the process.
        program: The command's name in its help.

    Returns:
        The exit code: 0 for success; 2 for an invalid argument, model or image, after one line for
        each on the error stream; 1 if the predictions cannot be written; 130 after Ctrl-C; 141 if
        the reader of the output has closed the pipe.
    """
    try:
        return _run(argv, program)
    except KeyboardInterrupt:
        _tell("Interrupted.")
        return 130
    except OSError as error:
        _give_up(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return 141
        _complain(f"the predictions cannot be written: {error.strerror}")
        return 1


def _run(argv: Sequence[str] | None, program: str) -> int:
    try:
        options = _parser(program).parse_intermixed_args(argv)
        if options.top < 1:
            raise ValueError(f"--top must be an integer of at least 1: {options.top}")
        net = _open(options.model)
        # Checked before the images are searched, since the check does not depend on them.
        net.check_depth(options.threshold, options.max_unroll)
        shape = net.picture_shape
        if shape is None:
            raise ValueError(
                "MODEL must have one answer for pictures of one size, but this one takes any size "
                f"or answers for each position; call {type(net).__name__} of export.predict for it"
                f": {options.model}"
            )
        if options.invert != "auto" and net.preparation is None:
            raise ValueError(
                f"--invert must be auto: this model reads images unchanged: {options.invert}"
            )
        found, problems = _classify(net, shape, options)
    except (ValueError, ModelFileError, ImportError) as error:
        _complain(_in_command_words(str(error)))
        return 2
    for problem in problems:
        _complain(problem)
    if options.json:
        # One line per image: indented JSON would have one line for each block.
        _write("[" + ",\n ".join(map(json.dumps, found)) + "]")
    elif found:
        _say(make_report(found, net, options.threshold, options.max_unroll))
    return 2 if problems else 0


def _open(path: str) -> FileClassifier:
    """Return the classifier of a file, whose ending says which runtime it is for."""
    return LiteRTClassifier(path) if path.endswith(".tflite") else OnnxClassifier(path)


def _in_command_words(message: str) -> str:
    """Return a message of the classifier with its arguments replaced by options."""
    for argument in ("threshold", "max_unroll"):
        flag = "--" + argument.replace("_", "-")
        message = message.replace(f"`{argument}`", flag).replace(f"{argument}=", f"{flag} ")
    return message


class _Layout(argparse.RawDescriptionHelpFormatter):
    """The layout of the other commands' help."""

    def add_usage(self, usage, actions, groups, prefix=None):
        super().add_usage(usage, actions, groups, "Usage: ")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        usage="%(prog)s [OPTIONS] MODEL IMAGE...",
        description="  Classify images with an exported model.\n\n"
        "  Exit code 2: an argument, the model or an image is invalid.",
        formatter_class=_Layout,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument_group("Arguments").add_argument
    text = "File of a model: .onnx, as publish writes it, or .tflite, as export_litert writes it."
    add("model", metavar="MODEL", help=text)
    add(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="Image file, folder of image files, or pattern such as '*.png'.",
    )
    add = parser.add_argument_group("Depth of models with adaptive depth").add_argument
    text = "Stopping threshold: the 2-norm of an update below which an image stops.  "
    text += "[default: the model's own]"
    add("--threshold", type=float, metavar="<float>", help=text)
    text = "Largest number of updates of a block.  [default: the model's own]"
    add("--max-unroll", type=int, metavar="<int>", help=text)
    add = parser.add_argument_group("Images for models of digits").add_argument
    text = "Whether the ink is darker than the background: auto, yes or no.  [default: auto]"
    add("--invert", choices=INVERT, metavar="<str>", default="auto", help=text)
    add = parser.add_argument_group("Options").add_argument
    add(
        "--top",
        type=int,
        default=5,
        metavar="<int>",
        help="Number of classes to show.  [default: 5]",
    )
    add("--json", action="store_true", help="Print the predictions as one JSON document.")
    add("--help", action="help", help="Show this message and exit.")
    return parser


def _classify(
    net: FileClassifier, shape: tuple[int, int, int], options: argparse.Namespace
) -> tuple[list[dict], list[PictureError | ModelFileError]]:
    """Return an entry for each classified image, and the errors of the others."""
    files: list[str] = []
    found: list[dict] = []
    problems: list[PictureError | ModelFileError] = []
    for argument in options.images:
        try:
            files += find_pictures(argument)
        except PictureError as error:
            problems.append(error)
    for start in range(0, len(files), BATCH):
        read, pictures = [], []
        for file in files[start : start + BATCH]:
            try:
                pictures.append(
                    read_picture(file, shape, net.scale, net.preparation, options.invert)
                )
                read.append(file)
            except PictureError as error:
                problems.append(error)
        if read:
            images = np.stack([picture.pixels for picture in pictures])
            try:
                predictions = _run_net(net, images, options)
            except ModelFileError as error:
                # The predictions of the other batches are kept.
                problems.append(error)
                continue
            for i, (file, picture) in enumerate(zip(read, pictures, strict=True)):
                prediction = Predictions(*(output[i] for output in predictions))
                found.append(_entry(picture, file, prediction, net.classes, options.top))
    return found, problems


def _run_net(net: FileClassifier, images: np.ndarray, options: argparse.Namespace) -> Predictions:
    """Return the model's predictions.

    The model runs in another thread: in the main thread Python would handle Ctrl-C only after the
    run.
    """
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(net.classify, images, options.threshold, options.max_unroll)
        try:
            return running.result()
        except KeyboardInterrupt:
            net.stop()
            raise


def _entry(
    picture: Picture, file: str, prediction: Predictions, classes: Sequence[str], top: int
) -> dict:
    """Return the entry of an image in the JSON document.

    Its list `top` is empty if the prediction is not finite or the image has no contrast.
    """
    probabilities, size, crop = prediction.probabilities, picture.resized_from, picture.crop
    order = np.argsort(-probabilities, kind="stable")[:top]
    if not picture.has_contrast or not np.isfinite(probabilities).all():
        order = order[:0]
    return {
        "file": file,
        "top": [{"class": classes[k], "probability": float(probabilities[k])} for k in order],
        "depth": prediction.depth.tolist(),
        "status": [STATUS[code] for code in prediction.status],
        "resized_from": size and {"width": size[0], "height": size[1]},
        "crop": crop and dict(zip(("left", "top", "right", "bottom"), crop, strict=True)),
        "inverted": picture.inverted,
        "contrast": picture.has_contrast,
    }


def _printable(text: str) -> str:
    """Return a text with "?" for line ends, control characters and undecodable bytes."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(lines: list[str]) -> None:
    """Print lines, with "?" for characters that the stream's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(map(_printable, lines))
    _write(text.encode(encoding, "replace").decode(encoding))


def _write(text: str) -> None:
    # If the shell has closed the stream, `sys.stdout` is None, and `print` would print nothing.
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    print(text, flush=True)


def _complain(message: Exception | str) -> None:
    _tell(f"Error: {_printable(' '.join(str(message).split()))}")


def _tell(line: str) -> None:
    """Write a line to the error stream; do nothing if it cannot be written."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Redirect a stream to the null device, or its buffer fails again when Python exits."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    raise SystemExit(main(program=f"python -m {__spec__.name}"))
