"""The measures of a run by epoch, as CSV."""

import csv
import io
import itertools
import math

FIELDS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)
# These fields are empty in a run without a validation part.
VALIDATION_FIELDS = ("val_loss", "val_accuracy")


def format_history(rows: list[dict[str, float]]) -> str:
    """Return the CSV text with one row for each epoch; a missing measure is an empty field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def parse_history(text: str, epochs: int) -> list[dict[str, float]]:
    """Return the rows of the first `epochs` epochs.

    Raises:
        ValueError: A row is missing or damaged.
    """
    reader = itertools.islice(csv.DictReader(text.splitlines()), epochs)
    try:
        rows = [_parse_row(row) for row in reader]
    except (csv.Error, KeyError, TypeError) as error:
        raise ValueError(f"it must be a table of epochs: {error!r}") from error
    if [row["epoch"] for row in rows] != list(range(1, epochs + 1)):
        raise ValueError("epochs are missing")
    return rows


def _parse_row(row: dict[str, str]) -> dict[str, float]:
    names = [name for name in FIELDS if row[name] or name not in VALIDATION_FIELDS]
    numbers = {name: float(row[name]) for name in names}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a number in it is not finite")
    return {**numbers, "epoch": int(row["epoch"])}
