"""A batch that stays full, beside `predict`: `python -m benchmarks.refill_cost`."""

import time
from collections.abc import Callable
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import typer

from benchmarks.harness.measured_tables import show
from benchmarks.mixed_lengths import NET, NO_STOP, padded_sequences
from iterconv.command_help import make_command_app
from keras_iterconv.depth.stream import Stream, adaptive_block
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.depth.traced_stream import TracedStream
from keras_iterconv.unrolling.refilling import REFILL_COST

from .timing import describe_machine

PREDICT = "predict"
# Assumed costs of a refill: of one at each update, the library's, and a larger one.
COSTS = (0.0, REFILL_COST, 0.5)
# Numbers of updates of full batches; the difference of their times is that of updates alone.
FEW, MANY = 2, 25


def refill_cost(
    file: Annotated[
        str | None,
        typer.Argument(help="A .keras file of a trained deep_thinking.  [default: the zoo's]"),
    ] = None,
    sequences: Annotated[int, typer.Option(help="Number of sequences.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Number of sequences in the batch.")] = 64,
    lengths: Annotated[str, typer.Option(help="Lengths, an equal share each.")] = "12,24,48,96",
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time a stream of padded sequences that stop by themselves.

    All candidates take turns at each batch of sequences. The ideal time is that of the sequences'
    own updates, each at its share of an update of a full batch in which no sequence stops.
    """
    model: Any = ki.load_pretrained(NET) if file is None else keras.models.load_model(file)
    bits = [int(text) for text in lengths.split(",")]
    images, _ = padded_sequences(sequences, bits, model.preprocessing)
    images = images[np.random.default_rng(1).permutation(sequences)]
    batches = [images[n : n + batch_size] for n in range(0, sequences, batch_size)]
    seconds, updates, results = _measure(model, batches, batch_size)
    depth = results[PREDICT]["depth"].ravel()
    ideal = updates.mean(axis=0) * depth.sum() / batch_size
    lines, others = [], []
    for name, each in seconds.items():
        together = np.stack([updates[:, 0] * depth.sum() / batch_size / len(batches), each[:, 0]])
        parts = [
            part.sum(axis=1) for part in np.array_split(together, min(10, len(batches)), axis=1)
        ]
        ratios = [of_ideal / taken for of_ideal, taken in parts]
        found, (total, of_processor) = results[name], each.sum(axis=0)
        wrong = np.sum(found["depth"].ravel() != depth) + np.sum(
            found["outputs"].argmax(-1) != results[PREDICT]["outputs"].argmax(-1)
        )
        others.append(int(wrong))
        lines.append(
            [
                name,
                f"{total:.1f}",
                f"{ideal[0] / total:.2f}",
                f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{ideal[1] / of_processor:.2f}",
                f"{wrong}",
            ]
        )
    cost = _cost_of_refill(seconds, updates.mean(axis=0), depth, batch_size)
    title = (
        f"{sequences} sequences of {lengths} bits, {depth.mean():.1f} updates on average, ideal "
        f"{ideal[0]:.1f} s; a refill costs {cost:.2f} updates of the batch; {describe_machine()}"
    )
    header = ["candidate", "s", "ideal to time", "by tenths", "of processor time", "other results"]
    content = {name: each.tolist() for name, each in seconds.items()}
    content.update(
        machine=describe_machine(), update=updates.tolist(), cost=cost, other_results=others
    )
    show(title, header, lines, content, output)


def _measure(model: Any, batches: list, batch_size: int) -> tuple[dict, np.ndarray, dict]:
    """Return the seconds of each candidate by batch, those of one update, and the results.

    The seconds are of the clock and of the processor, `[batches, 2]`.
    """
    block, run = adaptive_block(model), TracedDepth(model)
    own = {"threshold": block.threshold, "max_unroll": block.max_unroll}
    streams = {}
    for cost in COSTS:
        traced = TracedStream(model, block, batches[0], cost)
        Stream(traced, batch_size).add(batches[0])
        streams[f"stream, a refill taken as {cost:g} updates"] = Stream(traced, batch_size)
    found: list[Any] = []

    def full(updates: int) -> None:
        # Read as the graph runs, which is traced once.
        block.threshold, block.max_unroll = NO_STOP, updates
        run(batches[0])
        block.threshold, block.max_unroll = own["threshold"], own["max_unroll"]

    candidates: dict[Any, Callable[[Any], Any]] = {
        PREDICT: lambda batch: found.append(run(batch)),
        **{name: stream.add for name, stream in streams.items()},
        FEW: lambda batch: full(FEW),
        MANY: lambda batch: full(MANY),
    }
    run(batches[0])
    seconds: dict[Any, list[np.ndarray]] = {name: [] for name in candidates}
    for number, batch in enumerate(batches):
        names = list(candidates)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_seconds(candidates[name], batch))
    results = {PREDICT: {key: np.concatenate([each[key] for each in found]) for key in found[0]}}
    for name, stream in streams.items():
        seconds[name][-1] += _seconds(
            lambda stream: results.update({name: stream.end()}),  # noqa: B023
            stream,
        )
    arrays = {name: np.array(each) for name, each in seconds.items()}
    updates = (arrays.pop(MANY) - arrays.pop(FEW)) / (MANY - FEW)
    return arrays, updates, results


def _seconds(function: Callable[[Any], Any], argument: Any) -> np.ndarray:
    """Return the seconds of a call, of the clock and of the processor."""
    begin = time.perf_counter(), time.process_time()
    function(argument)
    return np.array([time.perf_counter(), time.process_time()]) - begin


def _cost_of_refill(seconds: dict, update: np.ndarray, depth: np.ndarray, batch_size: int) -> float:
    """Return the processor time of one refill in updates of the batch.

    It is the difference in time of the streams that refill most often and most seldom, without that
    of their updates, over the difference in the numbers of refills.
    """
    often, seldom = (count_refills(depth, batch_size, cost) for cost in (COSTS[0], COSTS[-1]))
    most, *_, fewest = (each[:, 1].sum() for name, each in seconds.items() if name != PREDICT)
    updates, refills = np.subtract(often, seldom)
    return float(((most - fewest) / update[1] - updates) / refills)


def count_refills(depth: np.ndarray, batch_size: int, cost: float) -> tuple[int, int]:
    """Return the numbers of updates and of refills of a stream, by its rule."""
    left, taken = depth[:batch_size].copy(), batch_size
    updates = refills = waste = 0
    while np.any(left > 0) or taken < len(depth):
        idle = int(np.sum(left <= 0))
        if idle and taken < len(depth) and waste + idle >= cost * len(left):
            places = np.flatnonzero(left <= 0)[: len(depth) - taken]
            left[places] = depth[taken : taken + len(places)]
            taken, refills, waste = taken + len(places), refills + 1, 0
            idle -= len(places)
        left, updates, waste = left - 1, updates + 1, waste + idle
    return updates, refills


app = make_command_app(refill_cost)

if __name__ == "__main__":
    app()
