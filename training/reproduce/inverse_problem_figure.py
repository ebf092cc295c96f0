"""The figure of the toy inverse problem, after Fig. 1 of Lippl et al."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .inverse_problem import LEFT_OUT, Measurements

NAMES = {
    "feedforward": "feed-forward",
    "algorithm": "algorithm",
    "resnet": "ResNet",
    "recurrent": "recurrent",
}
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = {
    "feedforward": "#D55E00",
    "algorithm": "#009E73",
    "resnet": "#0072B2",
    "recurrent": "#AA4499",
}
MARKERS = {"feedforward": "v", "algorithm": "D", "resnet": "o", "recurrent": "s"}


def draw_figure(path: Path, measured: Measurements) -> Figure:
    """Draw the diagram of a block, the paths of the readouts, and the effect of two disturbances.

    Args:
        path: The image file to write.
        measured: The measurements.

    Returns:
        The written figure.
    """
    figure = Figure(figsize=(12, 9))
    FigureCanvasAgg(figure)
    draw_schema(figure.add_axes((0.05, 0.69, 0.93, 0.27)))
    # Fixed positions: square panels of equal size, with room for labels at the ends of the lines.
    paths = [figure.add_axes((0.05 + 0.25 * k, 0.38, 0.18, 0.24)) for k in range(len(NAMES))]
    for axes, kind in zip(paths, NAMES, strict=True):
        draw_paths(axes, measured, kind)
    _title(paths[0], NAMES["feedforward"], letter="b", colour=COLOURS["feedforward"])
    _share_square(paths)
    draw_disturbed_paths(
        figure.add_axes((0.05, 0.06, 0.165, 0.22)),
        figure.add_axes((0.54, 0.06, 0.165, 0.22)),
        measured,
    )
    draw_left_out_errors(figure.add_axes((0.29, 0.06, 0.14, 0.22)), measured)
    draw_repeated_errors(figure.add_axes((0.765, 0.06, 0.14, 0.22)), measured)
    figure.savefig(path, dpi=120)
    return figure


def draw_schema(axes: Axes) -> None:
    """Draw the diagram of one error-corrective block."""
    axes.set(xlim=(0, 12), ylim=(-0.3, 3.2))
    axes.axis("off")
    _title(axes, "the error-corrective algorithm as a residual block", letter="a")
    keep, estimate, middle = 2.5, 0.3, 1.4
    box = FancyBboxPatch(
        (2.5, -0.2), 7.0, 3.2, boxstyle="round,pad=0,rounding_size=0.15", fc="0.96", ec="0.6"
    )
    axes.add_patch(box)

    def node(x: float, y: float, text: str, colour: str = "black", fill: str = "white") -> None:
        frame = {"boxstyle": "round,pad=0.35", "fc": fill, "ec": colour}
        axes.text(x, y, text, ha="center", va="center", fontsize=11, bbox=frame, zorder=3)

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str = "0.25") -> None:
        style: dict[str, Any] = {
            "arrowstyle": "-|>",
            "color": colour,
            "lw": 1.4,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", end, start, arrowprops=style, zorder=2)

    positive, negative, added = COLOURS["feedforward"], COLOURS["resnet"], COLOURS["algorithm"]
    node(0.7, middle, "input\n$x$")
    arrow((0.96, middle + 0.2), (1.89, keep))
    arrow((0.96, middle - 0.2), (1.83, estimate))
    node(2.0, keep, "$x$")
    node(2.0, estimate, "$z^{(t)}$")
    axes.text(0.4, estimate, "first\n$z^{(0)} = x$", fontsize=10, color="0.3", va="center")
    arrow((2.14, keep), (9.86, keep))
    axes.text(7.6, keep + 0.13, "$x$ is retained", ha="center", fontsize=10, color="0.3")
    arrow((2.22, estimate), (8.4, estimate))
    axes.text(6.2, estimate - 0.3, "skip connection", ha="center", fontsize=10, color="0.3")
    arrow((3.4, estimate), (3.4, middle - 0.33))
    node(3.4, middle, "prediction\n$\\alpha z^{(t)}$")
    arrow((3.84, middle), (4.62, middle))
    arrow((5.0, keep), (5.0, middle + 0.18))
    node(5.0, middle, "compare")
    arrow((5.38, middle + 0.1), (6.02, 1.85), positive)
    arrow((5.38, middle - 0.1), (6.02, 0.95), negative)
    node(6.8, 1.85, "$p = \\mathrm{ReLU}(\\alpha z^{(t)} - x)$", positive)
    node(6.8, 0.95, "$n = \\mathrm{ReLU}(x - \\alpha z^{(t)})$", negative)
    arrow((7.58, 1.85), (8.55, 0.47), positive)
    arrow((7.58, 0.95), (8.45, 0.42), negative)
    axes.text(8.25, 1.25, "$-\\,s\\epsilon\\,p$", fontsize=11, color=positive)
    axes.text(7.4, 0.45, "$+\\,s\\epsilon\\,n$", fontsize=11, color=negative)
    node(8.55, estimate, "$+$", added)
    arrow((8.68, estimate), (9.7, estimate))
    node(10.0, keep, "$x$")
    node(10.0, estimate, "$z^{(t+1)}$")
    arrow((10.3, estimate), (11.05, estimate))
    node(11.4, estimate, "readout\n$z$")
    axes.text(9.7, middle, "the same block\nis repeated", fontsize=10, color="0.3", va="center")


def draw_paths(axes: Axes, measured: Measurements, kind: str) -> None:
    """Draw the early readouts of one network, from the first state to the last block."""
    _title(axes, NAMES[kind], colour=COLOURS[kind])
    path = measured.paths[kind].early
    for sample in range(path.shape[1]):
        _draw_path(axes, path[:, sample], kind)
    _mark_true_z(axes, measured.z)


def draw_disturbed_paths(out: Axes, extra: Axes, measured: Measurements) -> None:
    """Draw the ResNets' paths of the first input, without a block, and with extra applications."""
    _title(out, f"block {LEFT_OUT} left out", "dotted: all blocks", letter="c")
    _title(extra, "last block repeated", "dashed: extra applications", letter="d")
    for kind in ("resnet", "recurrent"):
        readouts = measured.paths[kind]
        whole = readouts.early[:, 0]
        out.plot(*whole.T, ":", color=COLOURS[kind], lw=1.2)
        _draw_path(out, readouts.left_out[LEFT_OUT - 1, :, 0], kind)
        _draw_path(extra, whole, kind)
        extra.plot(*readouts.repeated[:, 0].T, "--", color=COLOURS[kind], lw=1.6)
    for axes in (out, extra):
        _mark_true_z(axes, measured.z[:1])
    _share_square([out])
    _share_square([extra], 2.0)


def draw_left_out_errors(axes: Axes, measured: Measurements) -> None:
    """Draw the mean error against the block that is left out."""
    ends = {}
    for kind in NAMES:
        errors = measured.errors[kind].left_out[:, :, -1]
        _draw_spread(axes, np.arange(1, errors.shape[1] + 1), errors, kind)
        ends[kind] = errors[:, -1].mean()
    axes.axvspan(LEFT_OUT - 0.4, LEFT_OUT + 0.4, color="0.88", zorder=0)
    axes.set_xticks(range(1, errors.shape[1] + 1))
    axes.set_xlabel("block left out")
    _finish_errors(axes, measured, ends)


def draw_repeated_errors(axes: Axes, measured: Measurements) -> None:
    """Draw the mean error against the number of extra applications of the last block."""
    ends = {}
    for kind in NAMES:
        errors = measured.errors[kind].repeated
        _draw_spread(axes, np.arange(errors.shape[1]), errors, kind)
        ends[kind] = errors[:, -1].mean()
    axes.set_xticks(range(0, errors.shape[1], 4))
    axes.set_xlabel("extra applications")
    _finish_errors(axes, measured, ends)


def _title(axes: Axes, text: str, note: str = "", letter: str = "", colour: str = "black") -> None:
    """Write a panel's title and the note under it, aligned to the left edge."""
    if letter:
        axes.annotate(
            letter, (0, 1), xycoords="axes fraction", xytext=(-22, 21 if note else 6),
            textcoords="offset points", fontsize=14, fontweight="bold",
        )  # fmt: skip
    axes.set_title(text, loc="left", fontsize=12, color=colour, pad=21 if note else 6)
    axes.annotate(
        note, (0, 1), xycoords="axes fraction", xytext=(0, 6), textcoords="offset points",
        fontsize=10, color="0.3",
    )  # fmt: skip


def _draw_path(axes: Axes, path: np.ndarray, kind: str) -> None:
    """Draw readouts `[steps, 2]`, the first one hollow."""
    style: dict[str, Any] = {"color": COLOURS[kind], "marker": MARKERS[kind], "ms": 4, "lw": 1.3}
    axes.plot(*path.T, **style)
    axes.plot(*path[0], **style, mfc="white", zorder=3)


def _mark_true_z(axes: Axes, z: np.ndarray) -> None:
    axes.plot(*z.T, "x", color="black", ms=9, mew=2.2, zorder=4)
    axes.set_xlabel("$z_1$", labelpad=1)
    axes.set_ylabel("$z_2$", labelpad=-2)


def _share_square(panels: list[Axes], reach: float | None = None) -> None:
    """Set equal square axis limits in all panels, by default limits that include all paths."""
    if reach is None:
        lines = [line.get_xydata() for axes in panels for line in axes.lines]
        reach = 1.1 * max(1.0, np.max(np.abs(np.concatenate(lines))))
    for axes in panels:
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.axhline(0, color="0.85", lw=0.8, zorder=0)
        axes.axvline(0, color="0.85", lw=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_spread(axes: Axes, steps: np.ndarray, errors: np.ndarray, kind: str) -> None:
    """Draw the mean over the seeds, and a band from the minimum to the maximum."""
    style: dict[str, Any] = {"color": COLOURS[kind], "marker": MARKERS[kind], "ms": 4, "lw": 1.4}
    axes.plot(steps, errors.mean(axis=0), **style)
    axes.fill_between(
        steps, errors.min(axis=0), errors.max(axis=0), color=COLOURS[kind], alpha=0.2, lw=0
    )


def _finish_errors(axes: Axes, measured: Measurements, ends: dict[str, float]) -> None:
    """Label the lines at their right ends, and draw the error of the constant prediction 0."""
    axes.set_yscale("log")
    axes.set_title("mean error", loc="left", fontsize=10, color="0.3")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(measured.chance, color="0.4", ls=":", lw=1.2, zorder=0)
    low, high = np.log10(axes.get_ylim())
    marks = [(NAMES[kind], COLOURS[kind], end) for kind, end in ends.items()]
    marks = sorted([*marks, ("constant 0", "0.4", measured.chance)], key=lambda mark: mark[2])
    heights = [(np.log10(end) - low) / (high - low) for *_, end in marks]
    for (name, colour, _), height in zip(marks, spread_heights(heights), strict=True):
        axes.text(
            1.04, height, name, transform=axes.transAxes, color=colour, fontsize=10, va="center"
        )


def spread_heights(heights: list[float], gap: float = 0.1) -> list[float]:
    """Return rising heights in [0, 1], moved so that they are `gap` apart and at most 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    ceiling = 1.0
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], ceiling)
        ceiling = placed[k] - gap
    return placed
