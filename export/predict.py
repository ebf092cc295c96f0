"""Classify pictures with an exported net: `python -m export.predict net.onnx photos/`.

This needs onnxruntime, numpy and Pillow, and nothing else of the project.
"""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .answers_table import make_report
from .classifier import ModelFileError, OnnxClassifier, Predictions
from .pictures import Picture, PictureError, find_pictures, read_picture
from .preparation import INVERT

__all__ = ["OnnxClassifier", "main"]

# Pictures in memory at a time.
BATCH = 64

STATUS = ("converged", "max_unroll", "not_finite")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message}; see {self.prog} --help")

    def exit(self, status=0, message=None):
        # Help that cannot be written fails here, where `main` sees it.
        print(end="", flush=True)
        super().exit(status, message)


def main(argv: Sequence[str] | None = None, program: str = "iterconv predict") -> int:
    """Run the command line.

    Args:
        argv: The arguments, those of the process unless given.
        program: What the command is called in its help.

    Returns:
        The exit code: 0; 2 where an argument, the net or a picture is bad, after one line on the
        error stream for each; 1 where the answers cannot be written; 130 after Ctrl-C; 141 where
        whoever reads the answers has gone.
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
        _complain(f"the answers could not be written: {error.strerror}")
        return 1


def _run(argv: Sequence[str] | None, program: str) -> int:
    try:
        options = _parser(program).parse_intermixed_args(argv)
        if options.top < 1:
            raise ValueError(f"--top must be an integer of at least 1: {options.top}")
        net = OnnxClassifier(options.model)
        # Before a picture is looked for: no answer depends on which.
        net.check_depth(options.threshold, options.max_unroll)
        if options.invert != "auto" and net.preparation is None:
            raise ValueError(
                f"--invert must be auto, for this net reads pictures as they are: {options.invert}"
            )
        found, problems = _classify(net, options)
    except (ValueError, ModelFileError, ImportError) as error:
        _complain(_in_command_words(str(error)))
        return 2
    for problem in problems:
        _complain(problem)
    if options.json:
        # A picture a line: tens of blocks would be as many lines.
        _write("[" + ",\n ".join(map(json.dumps, found)) + "]")
    elif found:
        _say(make_report(found, net, options.threshold, options.max_unroll))
    return 2 if problems else 0


def _in_command_words(message: str) -> str:
    """Return a message of the classifier with options in the place of its arguments."""
    for argument in ("threshold", "max_unroll"):
        flag = "--" + argument.replace("_", "-")
        message = message.replace(f"`{argument}`", flag).replace(f"{argument}=", f"{flag} ")
    return message


class _Layout(argparse.RawDescriptionHelpFormatter):
    """The layout that the other commands' help has."""

    def add_usage(self, usage, actions, groups, prefix=None):
        super().add_usage(usage, actions, groups, "Usage: ")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        usage="%(prog)s [OPTIONS] MODEL.onnx IMAGE...",
        description="  Classify pictures with an exported net.\n\n"
        "  Exit code 2: an argument, the net or a picture was bad; the others are classified.",
        formatter_class=_Layout,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument_group("Arguments").add_argument
    add("model", metavar="MODEL.onnx", help="A net that the project exported.")
    add("images", metavar="IMAGE", nargs="+", help="A picture, a folder of them or a pattern.")
    add = parser.add_argument_group("Depth, of nets of adaptive depth").add_argument
    text = "Norm of an update below which an image stops.  [default: the net's own]"
    add("--threshold", type=float, metavar="<float>", help=text)
    text = "Largest number of updates in a block.  [default: the net's own]"
    add("--max-unroll", type=int, metavar="<int>", help=text)
    add = parser.add_argument_group("Pictures, of nets of digits").add_argument
    text = "Whether ink is darker than the ground: auto, yes or no.  [default: auto]"
    add("--invert", choices=INVERT, metavar="<str>", default="auto", help=text)
    add = parser.add_argument_group("Options").add_argument
    add("--top", type=int, default=5, metavar="<int>", help="Classes shown.  [default: 5]")
    add("--json", action="store_true", help="Print one JSON document.")
    add("--help", action="help", help="Show this message and exit.")
    return parser


def _classify(
    net: OnnxClassifier, options: argparse.Namespace
) -> tuple[list[dict], list[PictureError | ModelFileError]]:
    """Return an entry for each picture that was classified, and what is wrong with the others."""
    files, problems, found = [], [], []
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
                    read_picture(file, net.input_shape, net.scale, net.preparation, options.invert)
                )
                read.append(file)
            except PictureError as error:
                problems.append(error)
        if read:
            images = np.stack([picture.pixels for picture in pictures])
            try:
                answers = _run_net(net, images, options)
            except ModelFileError as error:
                # The answers of other pictures are not lost.
                problems.append(error)
                continue
            for i, (file, picture) in enumerate(zip(read, pictures, strict=True)):
                answer = Predictions(*(part[i] for part in answers))
                found.append(_entry(picture, file, answer, net.classes, options.top))
    return found, problems


def _run_net(net: OnnxClassifier, images: np.ndarray, options: argparse.Namespace) -> Predictions:
    """Classify in a thread: in this one Python would hear Ctrl-C only after the whole run."""
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(net.classify, images, options.threshold, options.max_unroll)
        try:
            return running.result()
        except KeyboardInterrupt:
            net.stop()
            raise


def _entry(
    picture: Picture, file: str, answer: Predictions, classes: Sequence[str], top: int
) -> dict:
    """Return the entry of a picture in the JSON document.

    `top` is empty without a finite answer, and where the picture shows nothing to be read.
    """
    probabilities, size, crop = answer.probabilities, picture.resized_from, picture.crop
    order = np.argsort(-probabilities, kind="stable")[:top]
    if not picture.has_contrast or not np.isfinite(probabilities).all():
        order = []
    return {
        "file": file,
        "top": [{"class": classes[k], "probability": float(probabilities[k])} for k in order],
        "depth": answer.depth.tolist(),
        "status": [STATUS[code] for code in answer.status],
        "resized_from": size and {"width": size[0], "height": size[1]},
        "crop": crop and dict(zip(("left", "top", "right", "bottom"), crop, strict=True)),
        "inverted": picture.inverted,
        "contrast": picture.has_contrast,
    }


def _printable(text: str) -> str:
    """Replace line ends, the terminal's commands and bytes that are no text: names have them."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(lines: list[str]) -> None:
    """Print lines, with "?" for what the stream's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(map(_printable, lines))
    _write(text.encode(encoding, "replace").decode(encoding))


def _write(text: str) -> None:
    # Python starts without the stream where a shell has closed it, and then prints nothing.
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    print(text, flush=True)


def _complain(message: Exception | str) -> None:
    _tell(f"Error: {_printable(' '.join(str(message).split()))}")


def _tell(line: str) -> None:
    """Write a line to the error stream, where that can be written: there is no other place."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream) -> None:
    """Let a stream lead nowhere; what is in its buffer would fail again as Python ends."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    raise SystemExit(main(program=f"python -m {__spec__.name}"))
