"""Classify pictures with an exported net: `python -m export.predict net.onnx photos/`.

This needs onnxruntime, numpy and Pillow, and nothing else of the project.
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

import numpy as np

from .classifier import Answers, ModelFileError, OnnxClassifier
from .pictures import Picture, PictureError, find_pictures, read_picture

__all__ = ["OnnxClassifier", "main"]

# Pictures in memory at a time.
BATCH = 64

STATUS = ("converged", "max_unroll", "not_finite")

# The table's columns, and what is left of a long path at least, from its end.
HEAD = ("file", "class", "prob.", "updates", "next", "note")
FILE, _, PROBABILITY, UPDATES, NEXT, NOTE = range(len(HEAD))
SHORTEST_PATH = 24


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message}; see {self.prog} --help")

    def exit(self, status=0, message=None):
        # Help that cannot be written fails here, where `main` sees it.
        print(end="", flush=True)
        super().exit(status, message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, those of the process unless given.

    Returns:
        The exit code: 0; 2 where an argument, the net or a picture is bad, after one line on the
        error stream for each; 1 where the answers cannot be written; 130 after Ctrl-C; 141 where
        whoever reads the answers has gone.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except OSError as error:
        # What waits in the buffer would be tried again, and fail again, as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _complain(f"the answers could not be written: {error.strerror}")
        return 1


def _run(argv: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_intermixed_args(argv)
        if options.top < 1:
            raise ValueError(f"`top` must be an integer of at least 1. Received: top={options.top}")
        net = OnnxClassifier(options.model)
        # Before a picture is looked for: no answer depends on which.
        net.check_depth(options.threshold, options.max_unroll)
        found, problems = _classify(net, options)
    except (ValueError, ModelFileError, ImportError) as error:
        _complain(error)
        return 2
    for problem in problems:
        _complain(problem)
    if options.json:
        # A picture a line: tens of blocks would be as many lines.
        print("[" + ",\n ".join(map(json.dumps, found)) + "]", flush=True)
    elif found:
        _say(_report(found, net, options))
    return 2 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        # The package is called `export` in a checkout and `iterconv.export` in the wheel.
        prog=f"python -m {__spec__.name}",
        description="Classify pictures with an exported net.",
        epilog="Exit code 2: an argument, the net or a picture was bad; the others are classified.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", help="a net that the project exported")
    add("images", metavar="IMAGE", nargs="+", help="a picture, a folder of them or a pattern")
    smaller = "updates of a smaller 2-norm end an iteration (nets of adaptive depth alone)"
    add("--threshold", type=float, metavar="T", help=smaller)
    most = "updates in a block at most (such nets alone)"
    add("--max-unroll", type=int, metavar="K", help=most)
    add("--top", type=int, default=5, metavar="N", help="classes shown (default: 5)")
    add("--json", action="store_true", help="print one JSON document")
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
                pictures.append(read_picture(file, net.input_shape, net.scale))
                read.append(file)
            except PictureError as error:
                problems.append(error)
        if read:
            images = np.stack([picture.pixels for picture in pictures])
            try:
                answers = net.classify(images, options.threshold, options.max_unroll)
            except ModelFileError as error:
                # The answers of other pictures are not lost.
                problems.append(error)
                continue
            for i, (file, picture) in enumerate(zip(read, pictures, strict=True)):
                answer = Answers(*(part[i] for part in answers))
                found.append(_entry(picture, file, answer, net.classes, options.top))
    return found, problems


def _entry(picture: Picture, file: str, answer: Answers, classes: Sequence[str], top: int) -> dict:
    """Return what the JSON document says of a picture; `top` is empty without a finite answer."""
    probabilities, size = answer.probabilities, picture.resized_from
    order = np.argsort(-probabilities, kind="stable")[:top]
    if not np.isfinite(probabilities).all():
        order = []
    return {
        "file": file,
        "top": [{"class": classes[k], "probability": float(probabilities[k])} for k in order],
        "depth": answer.depth.tolist(),
        "status": [STATUS[code] for code in answer.status],
        "resized_from": size and {"width": size[0], "height": size[1]},
    }


def _report(found: list[dict], net: OnnxClassifier, options: argparse.Namespace) -> list[str]:
    """Return the lines shown: what the net does, a row for each picture, the mean depth."""
    blocks = len(found[0]["depth"])
    title = f"{net.metadata['model']} on {net.metadata['dataset']}"
    of_most = ""
    if net.adaptive:
        threshold = net.threshold if options.threshold is None else options.threshold
        most = net.max_unroll if options.max_unroll is None else options.max_unroll
        title += f": each of {blocks} blocks" if blocks > 1 else ": one block"
        title += f" until its update is below {threshold:g}, at most {most} times"
        of_most = f" of {blocks * most}"
    rows = [HEAD]
    for entry in found:
        first, *others = entry["top"] or [None]
        answer = [first["class"], f"{first['probability']:.1%}"] if first else ["none", ""]
        row = [entry["file"], *answer, f"{sum(entry['depth'])}{of_most}"]
        others = [f"{other['class']} ({other['probability']:.1%})" for other in others]
        # Lines break between classes only.
        row.append(", ".join(other.replace(" ", "\xa0") for other in others))
        row.append(", ".join(_notes(entry, net.adaptive)))
        rows.append(row)
    # A pipe has no width, and gets each picture in one line.
    width = shutil.get_terminal_size((sys.maxsize, 24)).columns
    lines = [title, "", *_table(rows, width)]
    if net.adaptive and len(found) > 1:
        mean = np.mean([sum(entry["depth"]) for entry in found])
        lines += ["", f"mean of {len(found)} pictures: {mean:.1f}{of_most} updates"]
    return lines


def _notes(entry: dict, adaptive: bool) -> list[str]:
    """Say what is not as it should be; a net of fixed depth stops at its limit as it should."""
    notes = []
    if not entry["top"]:
        notes.append("no finite answer")
    for status, said in (("not_finite", "not finite"), ("max_unroll", "not settled")):
        count, blocks = entry["status"].count(status), len(entry["status"])
        if count and (adaptive or status == "not_finite"):
            notes.append(said if blocks == 1 else f"{count} of {blocks} blocks {said}")
    if entry["resized_from"]:
        notes.append("resized from {width}x{height}".format(**entry["resized_from"]))
    return notes


def _table(rows: list[Sequence[str]], width: int) -> list[str]:
    """Lay out rows of cells, the first row as head, without the columns that hold nothing.

    Where the table is wider than `width`, notes stand below their rows, long paths lose their
    beginning, and the classes that come next take more lines.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) if any(column[1:]) else 0 for column in columns]

    def excess() -> int:
        return max(sum(w + 2 for w in widths if w) - 2 - width, 0)

    below = excess() > 0
    if below:
        widths[NOTE] = 0
        widths[FILE] = max(min(widths[FILE], SHORTEST_PATH), widths[FILE] - excess())
        widths[NEXT] = max(min(widths[NEXT], 1), widths[NEXT] - excess())
    lines = []
    for row in rows:
        path = row[FILE]
        if len(path) > widths[FILE]:
            path = "..." + path[3 - widths[FILE] :]
        others = textwrap.wrap(row[NEXT], widths[NEXT] or 1, break_long_words=False) or [""]
        cells = zip([path, *row[1:NEXT], others[0], row[NOTE]], widths, strict=True)
        padded = [
            cell.rjust(w) if k in (PROBABILITY, UPDATES) else cell.ljust(w)
            for k, (cell, w) in enumerate(cells)
            if w
        ]
        lines.append("  ".join(padded))
        indent = " " * sum(w + 2 for w in widths[:NEXT] if w)
        lines += [indent + other for other in others[1:]]
        if below and row is not HEAD:
            indent = " " * (widths[FILE] + 2)
            lines += textwrap.wrap(
                row[NOTE], width, initial_indent=indent, subsequent_indent=indent
            )
    return [line.replace("\xa0", " ").rstrip() for line in lines]


def _printable(text: str) -> str:
    """Replace line ends, the terminal's commands and bytes that are no text: names have them."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(lines: list[str]) -> None:
    """Print lines, with "?" for what the stream's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(map(_printable, lines))
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _complain(message: Exception | str) -> None:
    print("Error:", _printable(" ".join(str(message).split())), file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
