"""Policies of compaction, the removal of stopped samples: `python -m benchmarks.compaction`."""

from collections.abc import Callable
from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv.unrolling import unroll_adaptive
from keras_iterconv.unrolling.adaptive import COMPACTION_COST

UPDATES = 10
# Assumed cost of one compaction, in updates: 0, so that stopped samples are removed at once; more
# than any gain, so that none is removed; and the library's own.
POLICIES = {"at once": 0.0, "never": 1e30, "ours": COMPACTION_COST}

CASES = (
    "none stops",
    "all stop together",
    "spread evenly",
    "between 5 and 7",
    "a few stop late",
    "a few stop early",
)


def compaction(
    blocks: Annotated[int, typer.Option(help="Number of blocks in the chain.")] = 12,
    filters: Annotated[int, typer.Option(help="Number of channels.")] = 16,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    batch_size: Annotated[int, typer.Option(help="Number of images in a batch.")] = 64,
    rounds: RoundsOption = 9,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time a chain of adaptive loops with compaction at once, never, or by the library's rule.

    Each block has the same input, a batch whose samples are scaled so that they stop after given
    numbers of updates: the update of a block is proportional to its input.
    """
    sizes = {"blocks": blocks, "filters": filters, "side": side, "batch_size": batch_size}
    lines, rows = [], []
    with Bench(device) as bench:
        for case in CASES:
            candidates = {
                name: Candidate(
                    "benchmarks.compaction:Chain", {"cost": cost, **sizes}, {"case": case}
                )
                for name, cost in POLICIES.items()
            }
            depth, *others = (bench.ask(each, "depths", case=case) for each in candidates.values())
            for other in others:
                np.testing.assert_array_equal(other, depth)
            measured = bench.measure(candidates, rounds)
            best = min(("at once", "never"), key=measured.median)
            ratio = measured.speedup("ours", best)
            ends = [int(depth.min()), int(depth.max())]
            row = {"case": case, "depths": ends, "better": best, **measured.facts()}
            rows.append({**row, "ours_to_better": ratio._asdict()})
            medians = (f"{measured.median(name) * 1e3:.0f}" for name in POLICIES)
            spread = f"{depth.min()} to {depth.max()}, mean {depth.mean():.1f}"
            lines.append([case, spread, *medians, best, f"{ratio.median:.2f}", ratio.interval])
    header = ["case", "depths", *(f"{name}, ms" for name in POLICIES)]
    header += ["better", "ours to it", "95% interval"]
    title = (
        f"{blocks} loops of at most {UPDATES} updates, batch {batch_size}, {side}x{side}x{filters}"
    )
    show(title, header, lines, {"rows": rows}, output)


class Chain:
    """A compiled chain of equal loops, run one after the other with the same input.

    Traced once for all cases, whose inputs differ only in their values: they share a process.

    Args:
        cost: Assumed cost of one compaction, in updates.
        blocks: Number of loops.
        filters: Number of channels.
        side: Height and width of an image.
        batch_size: Number of images.
    """

    def __init__(self, cost: float, blocks: int, filters: int, side: int, batch_size: int):
        keras.utils.set_random_seed(0)
        block = ki.NAISConv2D(filters, max_unroll=UPDATES, step_size=0.5)
        images = tf.random.stateless_normal((batch_size, side, side, filters), (0, 0))
        scales = _scales(block, images)
        self.inputs = {
            case: images * scales(wanted)[:, np.newaxis, np.newaxis, np.newaxis]
            for case, wanted in _wanted_depths(batch_size).items()
        }
        self.chain = _chain(block, blocks, cost)

    def run(self, case: str) -> None:
        """Run the chain."""
        self.chain(self.inputs[case])[0].numpy()

    def depths(self, case: str) -> np.ndarray:
        """Return the depth of each sample."""
        return np.array(self.chain(self.inputs[case])[1])


def _wanted_depths(batch_size: int) -> dict[str, np.ndarray]:
    """Return the wanted depth of each sample, by case."""
    rank = np.arange(batch_size)
    depths = (
        np.full(batch_size, UPDATES),
        np.full(batch_size, 3),
        1 + rank * UPDATES // batch_size,
        5 + rank % 3,
        np.where(rank < batch_size // 16, UPDATES, 3),
        np.where(rank < batch_size // 16, 3, UPDATES),
    )
    return dict(zip(CASES, depths, strict=True))


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


app = make_command_app(compaction)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.compaction")
