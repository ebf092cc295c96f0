"""What a certificate says of a net, and how it is shown."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from keras_iterconv._support.text_table import as_text
from keras_iterconv.certificates.rows import BlockRow, plain

_NORM_NAMES = {"2": "2-norm", "infinity": "infinity norm"}


@dataclass(frozen=True, eq=False)
class StabilityReport:
    """The guarantees of a net's blocks, and a bound of the net's gain.

    Attributes:
        name: The net's name.
        blocks: A row for each block, from input to output.
        norm: The norm of the net's inputs and outputs in what follows: `"2"` or `"infinity"`.
        bound: No pair of inputs has a larger ||F(x) - F(y)|| / ||x - y||, F being the net in
            evaluation; None where none follows.
        bound_reason: Why no bound follows.
        largest_ratio: The largest that gradient ascent found; None where it could not start.
    """

    name: str
    blocks: list[BlockRow]
    norm: str
    bound: float | None
    bound_reason: str | None
    largest_ratio: float | None

    @property
    def holds(self) -> bool:
        """Whether every block has a guarantee and its weights meet the condition."""
        return all(row.holds for row in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, lists and strings; what is undefined is None."""
        return {
            "name": self.name,
            "holds": self.holds,
            "norm": self.norm,
            "bound": self.bound,
            "bound_reason": self.bound_reason,
            "largest_ratio": plain(self.largest_ratio),
            "blocks": [row.to_dict() for row in self.blocks],
        }

    def table(self) -> Table:
        """Return the rows as a Rich table; neighbours that say the same share one."""
        count = sum(row.holds for row in self.blocks)
        table = Table(
            title=f"Stability of {self.name}: the guarantee of {count} of {len(self.blocks)} "
            f"blocks holds\n{self._gain()}",
            title_justify="left",
            caption_justify="left",
            # Title and notes are wrapped at the table's width.
            min_width=90,
        )
        table.add_column("block", overflow="fold")
        table.add_column("norm")
        table.add_column("factor", justify="right")
        table.add_column("measured")
        table.add_column("guarantee")
        notes: dict[str, int] = {}
        groups: list[tuple[list[str], tuple]] = []
        for row in self.blocks:
            cells = self._cells(row, notes)
            if groups and groups[-1][1] == cells:
                groups[-1][0].append(row.name)
            else:
                groups.append(([row.name], cells))
        for names, cells in groups:
            first = names[0]
            if len(names) > 1:
                first = f"{first} to {names[-1]} ({len(names)})"
            table.add_row(first, *cells)
        table.caption = "\n".join(f"[{number}] {note}" for note, number in notes.items())
        return table

    def _cells(self, row: BlockRow, notes: dict[str, int]) -> tuple[str, ...]:
        note = row.reason if row.guarantee is None else f"{row.guarantee} ({row.reference})"
        number = notes.setdefault(note, len(notes) + 1)
        word = "none" if row.guarantee is None else "holds" if row.holds else "broken"
        cell = f"{word} [{number}]"
        if row.guarantee is not None and row.reason is not None:
            cell += f" [{notes.setdefault(row.reason, len(notes) + 1)}]"
        factor = "-" if row.factor is None else f"{row.factor:.4g}"
        return row.norm or "-", factor, row.measured(), cell

    def _gain(self) -> str:
        ratio = "none" if self.largest_ratio is None else f"{self.largest_ratio:.4g}"
        if self.bound is None:
            bound = f"No Lipschitz bound follows: {self.bound_reason}"
        else:
            bound = f"Lipschitz bound {self.bound:.4g}"
        return f"{bound}; largest ratio found {ratio} ({_NORM_NAMES[self.norm]})"

    def __str__(self) -> str:
        return as_text(self.table())
