"""The table of predictions that `export.predict` prints."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from .file_classifier import FileClassifier

# The table's columns, and the least number of characters to keep from the end of a long path.
HEAD = ("file", "class", "prob.", "updates", "next", "note")
FILE, _, PROBABILITY, UPDATES, NEXT, NOTE = range(len(HEAD))
SHORTEST_PATH = 24


def make_report(
    found: list[dict],
    net: FileClassifier,
    threshold: float | None = None,
    max_unroll: int | None = None,
) -> list[str]:
    """Return the lines to print: a title, a row for each image, and the mean depth.

    Args:
        found: The entries of the JSON document, one for each image; at least one.
        net: The classifier.
        threshold: The chosen stopping threshold; None for the model's own.
        max_unroll: The chosen largest number of updates of a block; None for the model's own.
    """
    blocks = len(found[0]["depth"])
    title = f"{net.metadata['model']} on {net.metadata['dataset']}"
    of_limit = ""
    if net.adaptive:
        threshold = net.threshold if threshold is None else threshold
        limit: Any = net.max_unroll if max_unroll is None else max_unroll
        title += f": each of {blocks} blocks" if blocks > 1 else ": one block"
        title += f" until its update is below {threshold:g}, at most {limit} times"
        of_limit = f" of {blocks * limit}"
    rows: list[Sequence[str]] = [HEAD]
    for entry in found:
        first, *others = entry["top"] or [None]
        prediction = [first["class"], f"{first['probability']:.1%}"] if first else ["none", ""]
        row = [entry["file"], *prediction, f"{sum(entry['depth'])}{of_limit}"]
        others = [f"{other['class']} ({other['probability']:.1%})" for other in others]
        # Lines break between classes only.
        row.append(", ".join(other.replace(" ", "\xa0") for other in others))
        row.append(", ".join(_notes(entry, net.adaptive)))
        rows.append(row)
    # A pipe has no width: each image gets one line.
    width = shutil.get_terminal_size((sys.maxsize, 24)).columns
    lines = [title, "", *_table(rows, width)]
    if net.adaptive and len(found) > 1:
        mean = np.mean([sum(entry["depth"]) for entry in found])
        lines += ["", f"mean of {len(found)} images: {mean:.1f}{of_limit} updates"]
    return lines


def _notes(entry: dict, adaptive: bool) -> list[str]:
    """Return the notes of an image; a model of fixed depth always stops at its limit."""
    notes = []
    if not entry["contrast"]:
        notes.append("no contrast")
    elif not entry["top"]:
        notes.append("no finite prediction")
    for status, said in (("not_finite", "not finite"), ("max_unroll", "not converged")):
        count, blocks = entry["status"].count(status), len(entry["status"])
        if count and (adaptive or status == "not_finite"):
            notes.append(said if blocks == 1 else f"{count} of {blocks} blocks {said}")
    if entry["inverted"]:
        notes.append("inverted")
    crop, size = entry["crop"], entry["resized_from"]
    if crop:
        width, height = crop["right"] - crop["left"], crop["bottom"] - crop["top"]
        part = f"{width}x{height} at {crop['left']},{crop['top']}"
        notes.append(f"read {part} of {size['width']}x{size['height']}" if size else f"read {part}")
    elif size:
        notes.append("resized from {width}x{height}".format(**size))
    return notes


def _table(rows: list[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table with its head in the first row and without empty columns.

    If the table is wider than `width`, notes are placed below their rows, long paths lose their
    beginning, and the next classes are wrapped to several lines.
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
