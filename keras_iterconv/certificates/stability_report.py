"""The stability report of a net, and its table."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from keras_iterconv._support.text_table import as_text
from keras_iterconv.layers.rules.rows import BlockRow, plain

_NORM_NAMES = {"2": "2-norm", "infinity": "infinity norm"}


@dataclass(frozen=True, eq=False)
class StabilityReport:
    """The guarantees of a net's blocks, and a Lipschitz bound of the whole net.

    Attributes:
        name: The net's name.
        blocks: Rows of the blocks, from input to output. Each has the fields `name`, `kind`,
            `norm`, `factor`, `guarantee`, `reference`, `holds` and `reason`, and its norms; that of
            a tied stage has `depth_bound`.
        norm: The norm of the net's inputs and outputs for the next three: `"2"` or `"infinity"`.
        bound: Upper bound of ||F(x) - F(y)|| / ||x - y|| over all pairs of inputs, F being the net
            in evaluation; None without a bound.
        bound_reason: Why there is no bound; None with a bound.
        largest_ratio: The largest such ratio that gradient ascent found; None where there was no
            input to start from.

    Example:
        >>> block = ki.NAISDense(4, initial_state="input", name="block")
        >>> model = keras.Sequential([keras.Input((4,)), block])
        >>> report = ki.certify(model, probe=np.ones((1, 4)))
        >>> report.holds, report.blocks[0].name, report.blocks[0].factor < 1
        (True, 'block', True)

    See also:
        `certify`, which returns it.
    """

    name: str
    blocks: list[BlockRow]
    norm: str
    bound: float | None
    bound_reason: str | None
    largest_ratio: float | None

    @property
    def holds(self) -> bool:
        """Whether every block has a guarantee whose condition its weights meet."""
        return all(row.holds for row in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as numbers, lists and strings; undefined values become None."""
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
        """Return the report as a Rich table; neighbouring blocks with equal cells share a line."""
        count = sum(row.holds for row in self.blocks)
        table = Table(
            title=f"Stability of {self.name}: the guarantee of {count} of {len(self.blocks)} "
            f"blocks holds\n{self._gain()}",
            title_justify="left",
            caption_justify="left",
            # Title and notes wrap at the table's width.
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
        note = str(row.reason) if row.guarantee is None else f"{row.guarantee} ({row.reference})"
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
            bound = f"No Lipschitz bound: {self.bound_reason}"
        else:
            bound = f"Lipschitz bound {self.bound:.4g}"
        return f"{bound}; largest ratio found {ratio} ({_NORM_NAMES[self.norm]})"

    def __str__(self) -> str:
        return as_text(self.table())
