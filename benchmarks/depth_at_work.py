"""A moving picture of sequences that stop by themselves: `python -m benchmarks.depth_at_work`."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import matplotlib
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from iterconv.command_help import make_command_app
from keras_iterconv.datasets.prefix_sums import draw_prefix_sums

# Even, odd, and an answer that is still wrong.
COLORS = ("#c5dde6", "#1f6f8b", "#e07a5f")
WRONG = 2
# Milliseconds of a frame, and of the last.
FRAME, LAST = 180, 4000


class Answers(NamedTuple):
    """The answers of a net for one sequence.

    Attributes:
        labels: The right answers, 0 or 1, `[bits]`.
        found: The answers after 1, 2, ... updates, `[updates, bits]`, up to the depth.
        depth: The number of updates at which the sequence stops by itself.
    """

    labels: np.ndarray
    found: np.ndarray
    depth: int


def depth_at_work(
    output: Annotated[str, typer.Option(help="GIF file to write.")] = "depth_at_work.gif",
    name: Annotated[str, typer.Option(help="Net of the zoo.")] = "deep_thinking_prefix_sums",
    lengths: Annotated[str, typer.Option(help="Lengths in bits.")] = "8,16,24,32,48,64",
) -> None:
    """Draw how the answers for sequences grow with each update, until each stops by itself."""
    model = ki.load_pretrained(name)
    rng = np.random.default_rng(2026)
    answers = [answer(model, int(text), rng) for text in lengths.split(",")]
    deepest = max(each.depth for each in answers)
    frames = [draw(answers, k) for k in range(1, deepest + 1)]
    write(frames, Path(output))


def answer(model: Any, bits: int, rng: np.random.Generator) -> Answers:
    """Return the answers of a net for one new sequence.

    Args:
        model: A net of the zoo for sequences.
        bits: The length.
        rng: Draws the sequence.
    """
    raw, labels = draw_prefix_sums(1, bits, rng)
    image = model.preprocessing(raw.astype(np.float32))
    (block,) = ki.iterated_blocks(model)
    limit = block.max_unroll
    depth = int(ki.with_depth(model)(image)["depth"][0, 0])
    found = []
    for updates in range(1, depth + 1):
        ki.set_depth(model, max_unroll=updates)
        found.append(np.argmax(model(image)[0], axis=-1))
    ki.set_depth(model, max_unroll=limit)
    return Answers(labels[0], np.stack(found), depth)


def draw(answers: list[Answers], updates: int) -> Image.Image:
    """Return the picture after a number of updates.

    Args:
        answers: The answers for each sequence.
        updates: The number of updates, from 1 on.
    """
    style: dict[Any, Any] = {"font.size": 10, "font.family": "DejaVu Sans"}
    longest = max(len(each.labels) for each in answers)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 3.1), dpi=100, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.02, 0.02, 0.96, 0.80))
        for row, each in enumerate(answers):
            _draw_sequence(axes, each, updates, len(answers) - 1 - row)
        # Room for what stands behind a sequence.
        axes.set_xlim(-0.5, longest + 18)
        axes.set_ylim(-0.6, len(answers) - 0.3)
        axes.axis("off")
        active = sum(updates < each.depth for each in answers)
        left = (
            f"{active} of {len(answers)} sequences still change" if active else "all have stopped"
        )
        figure.text(0.02, 0.92, f"update {updates}", fontsize=14, weight="bold")
        figure.text(0.18, 0.925, left, fontsize=11, color="0.3")
        _draw_key(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_sequence(axes: Axes, each: Answers, updates: int, height: int) -> None:
    bits = len(each.labels)
    found = each.found[min(updates, each.depth) - 1]
    shown = np.where(found == each.labels, found, WRONG)
    edges, low = np.arange(bits + 1) - 0.5, height - 0.32
    colors = ListedColormap(COLORS)
    axes.pcolormesh(
        edges, [low, low + 0.64], shown[None], cmap=colors, vmin=0, vmax=2, edgecolor="white", lw=1
    )
    if updates >= each.depth:
        axes.text(bits + 0.5, height, f"stopped at update {each.depth}", va="center", color="0.2")


def _draw_key(figure: Figure) -> None:
    """Name the colours, at the right of the title."""
    for place, color, text in zip(
        (0.52, 0.67, 0.81), COLORS, ("even", "odd", "still wrong"), strict=True
    ):
        figure.text(place, 0.92, "\u25a0", color=color, fontsize=15)
        figure.text(place + 0.025, 0.925, text, fontsize=10, color="0.2")


def write(frames: list[Image.Image], path: Path) -> None:
    """Write frames as a GIF that repeats, and stays at the last for a while.

    Args:
        frames: The pictures.
        path: The file.
    """
    # One palette for all, so that colours do not flicker.
    palette = frames[-1].quantize(128, method=Image.Quantize.FASTOCTREE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FRAME] * (len(small) - 1) + [LAST]
    small[0].save(path, save_all=True, append_images=small[1:], duration=durations, loop=0)


app = make_command_app(depth_at_work)

if __name__ == "__main__":
    app()
