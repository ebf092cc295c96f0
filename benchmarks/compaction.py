"""Policies of compaction, the removal of stopped samples: `python -m benchmarks.compaction`."""

import functools
from collections.abc import Callable
from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv.unrolling import unroll_adaptive
from keras_iterconv.unrolling.adaptive import COMPACTION_COST

from .timing import describe_machine, interleave, speedup

UPDATES = 10
# Assumed cost of one compaction, in updates: 0, so that stopped samples are removed at once; more
# than any gain, so that none is removed; and the library's own.
POLICIES = {"at once": 0.0, "never": 1e30, "ours": COMPACTION_COST}


def compaction(
    blocks: Annotated[int, typer.Option(help="Number of blocks in the chain.")] = 12,
    filters: Annotated[int, typer.Option(help="Number of channels.")] = 16,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    batch_size: Annotated[int, typer.Option(help="Number of images in a batch.")] = 64,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 9,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time a chain of adaptive loops with compaction at once, never, or by the library's rule.

    Each block has the same input, a batch whose samples are scaled so that they stop after given
    numbers of updates: the update of a block is proportional to its input.
    """
    keras.utils.set_random_seed(0)
    block = ki.NAISConv2D(filters, max_unroll=UPDATES, step_size=0.5)
    images = tf.random.stateless_normal((batch_size, side, side, filters), (0, 0))
    scales = _scales(block, images)
    # Traced once for all cases, whose inputs differ only in their values.
    runs = {name: _chain(block, blocks, cost) for name, cost in POLICIES.items()}
    lines, rows = [], []
    for case, wanted in _cases(batch_size).items():
        inputs = images * scales(wanted)[:, np.newaxis, np.newaxis, np.newaxis]
        depth = np.array(runs["ours"](inputs)[1])
        for run in runs.values():
            np.testing.assert_array_equal(run(inputs)[1], depth)
        candidates = {name: functools.partial(_run, run, inputs) for name, run in runs.items()}
        seconds = interleave(candidates, rounds)
        best = min(("at once", "never"), key=lambda name: np.median(seconds[name]))
        ratio = 1 / speedup(seconds[best], seconds["ours"])
        ends = [int(depth.min()), int(depth.max())]
        row = {"case": case, "depths": ends, "seconds": seconds}
        rows.append({**row, "better": best, "ours_to_better": ratio})
        medians = (f"{np.median(seconds[name]) * 1e3:.0f}" for name in POLICIES)
        spread = f"{depth.min()} to {depth.max()}, mean {depth.mean():.1f}"
        lines.append([case, spread, *medians, best, f"{ratio:.2f}"])
    header = ["case", "depths", *(f"{name}, ms" for name in POLICIES), "better", "ours to it"]
    title = (
        f"{blocks} loops of at most {UPDATES} updates, batch {batch_size}, "
        f"{side}x{side}x{filters}; {describe_machine()}"
    )
    show(title, header, lines, {"machine": describe_machine(), "rows": rows}, output)


def _cases(batch_size: int) -> dict[str, np.ndarray]:
    """Return the wanted depth of each sample, by case."""
    rank = np.arange(batch_size)
    return {
        "none stops": np.full(batch_size, UPDATES),
        "all stop together": np.full(batch_size, 3),
        "spread evenly": 1 + rank * UPDATES // batch_size,
        "between 5 and 7": 5 + rank % 3,
        "a few stop late": np.where(rank < batch_size // 16, UPDATES, 3),
        "a few stop early": np.where(rank < batch_size // 16, 3, UPDATES),
    }


def _scales(block: ki.NAISConv2D, images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from depths to the scales of images with these depths at threshold 1."""
    state, norms = images, []
    for k in range(UPDATES):
        after = block.update(state, images, k)
        norms.append(np.linalg.norm(np.reshape(after - state, (len(images), -1)), axis=1))
        state = after
    # The update is positively homogeneous (ReLU, no bias): at scale c its norm is multiplied by c.
    stacked = np.stack(norms)
    middle = np.sqrt(stacked[:-1] * stacked[1:])

    def scales(depths):
        sample_indices = np.arange(len(depths))
        # The threshold lies between the norms of the last two updates that are to be made.
        return np.where(
            depths == UPDATES,
            100 / norms[-1],
            1 / middle[np.maximum(depths, 2) - 2, sample_indices],
        ).astype(np.float32)

    return scales


def _chain(block, blocks, cost):
    """Return a compiled chain of `blocks` equal loops, run one after the other."""

    @tf.function
    def run(inputs):
        end = inputs
        for _ in range(blocks):
            # Run after the previous loop, with the same input.
            with tf.control_dependencies([end]):
                u = tf.identity(inputs)
            update, state = block.build_update(u), block.make_initial_state(u)
            end, depth, _ = unroll_adaptive(update, state, UPDATES, 1.0, "recompute", cost)
        return end, depth

    return run


def _run(run: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> None:
    run(inputs)[0].numpy()


app = make_command_app(compaction)

if __name__ == "__main__":
    app()
