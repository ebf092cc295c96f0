"""A batch that stays full, beside `predict`: `python -m benchmarks.refill_cost`."""

from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.intervals import speedup
from benchmarks.harness.measured import Measured
from benchmarks.harness.measured_tables import show
from benchmarks.mixed_lengths import NO_STOP, load_net, padded_sequences
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv.depth.stream import Stream, adaptive_block
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.depth.traced_stream import TracedStream
from keras_iterconv.unrolling.refilling import REFILL_COST

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
    sequences: Annotated[int, typer.Option(help="Number of sequences in a run.")] = 2_000,
    batch_size: Annotated[int, typer.Option(help="Number of sequences in the batch.")] = 64,
    lengths: Annotated[str, typer.Option(help="Lengths, an equal share each.")] = "12,24,48,96",
    rounds: RoundsOption = 7,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time a stream of padded sequences that stop by themselves.

    The ideal time is that of the sequences' own updates, each at its share of an update of a full
    batch in which no sequence stops.
    """
    net = {
        "file": file,
        "sequences": sequences,
        "batch_size": batch_size,
        "bits": [int(text) for text in lengths.split(",")],
    }
    predict = Candidate("benchmarks.refill_cost:Predictions", net)
    # The updates of full batches are those of one more graph.
    full = predict._replace(target="benchmarks.refill_cost:FullBatches")
    candidates = {PREDICT: predict}
    for cost in COSTS:
        name = f"stream, a refill taken as {cost:g} updates"
        candidates[name] = Candidate("benchmarks.refill_cost:StreamedNet", {**net, "cost": cost})
    updates = {f"{count} updates": full._replace(call={"updates": count}) for count in (FEW, MANY)}
    with Bench(device) as bench:
        results = {name: bench.ask(each, "results") for name, each in candidates.items()}
        measured = bench.measure({**candidates, **updates}, rounds)
    depth = results[PREDICT][0]
    update, busy = (
        (np.array(times[most]) - np.array(times[fewest])) / (MANY - FEW)
        for fewest, most in [updates]
        for times in (measured.seconds, measured.processor)
    )
    share = depth.sum() / batch_size
    lines, others = [], []
    for name in candidates:
        ratio = speedup(update * share, measured.seconds[name])
        of_processor = speedup(busy * share, measured.processor[name])
        wrong = sum(
            int(np.sum(found != expected))
            for found, expected in zip(results[name], results[PREDICT], strict=True)
        )
        others.append(wrong)
        ratios = [f"{ratio.median:.2f}", ratio.interval, f"{of_processor.median:.2f}"]
        lines.append([name, f"{measured.median(name):.1f}", *ratios, f"{wrong}"])
    cost_found = _cost_of_refill(measured, list(candidates)[1:], busy, depth, batch_size)
    title = (
        f"{sequences} sequences of {lengths} bits, {depth.mean():.1f} updates on average, ideal "
        f"{np.median(update) * share:.1f} s; a refill costs {cost_found:.2f} updates of the batch"
    )
    header = ["candidate", "s", "ideal to time", "95% interval", "of processor time"]
    content = {**measured.facts(), "cost": cost_found, "other_results": others}
    show(title, [*header, "other results"], lines, content, output)


class Predictions:
    """Predicts padded sequences in batches, each until its last sequence stops.

    Args:
        file: A .keras file; None for the zoo's net.
        sequences: Number of sequences.
        batch_size: Number of sequences in a batch.
        bits: Lengths, an equal share each.
    """

    def __init__(self, file: str | None, sequences: int, batch_size: int, bits: list[int]):
        self.model, self.batch_size = load_net(file), batch_size
        images, _ = padded_sequences(sequences, bits, self.model.preprocessing)
        images = images[np.random.default_rng(1).permutation(sequences)]
        self.batches = [images[n : n + batch_size] for n in range(0, sequences, batch_size)]
        self.traced = TracedDepth(self.model)

    def run(self) -> None:
        """Predict all."""
        self.predict()

    def predict(self) -> dict[str, np.ndarray]:
        """Return the outputs and depths of all."""
        found = [self.traced(batch) for batch in self.batches]
        return {key: np.concatenate([each[key] for each in found]) for key in found[0]}

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the depth of each sequence, `[N]`, and the bits of its output."""
        found = self.predict()
        return found["depth"].ravel(), found["outputs"].argmax(-1)


class StreamedNet(Predictions):
    """Predicts them as a stream, in which new sequences take the places of stopped ones.

    Args:
        cost: Assumed cost of a refill, in updates of the batch.
        **net: Arguments of `Predictions`.
    """

    def __init__(self, cost: float, **net: Any):
        super().__init__(**net)
        block = adaptive_block(self.model)
        self.streamed = TracedStream(self.model, block, self.batches[0], cost)

    def predict(self) -> dict[str, np.ndarray]:
        """Return the outputs and depths of all."""
        stream = Stream(self.streamed, self.batch_size)
        for batch in self.batches:
            stream.add(batch)
        return stream.end()


class FullBatches(Predictions):
    """Makes a given number of updates of one full batch, in which no sequence stops."""

    def run(self, updates: int = MANY) -> None:
        """Make the updates."""
        block = adaptive_block(self.model)
        # Read as the graph runs, which is traced once.
        block.threshold, block.max_unroll = NO_STOP, updates
        self.traced(self.batches[0])


def _cost_of_refill(
    measured: Measured, streams: list[str], busy: np.ndarray, depth: np.ndarray, batch_size: int
) -> float:
    """Return the processor time of one refill in updates of the batch, the median over rounds.

    It is the difference in time of the streams that refill most often and most seldom, without that
    of their updates, over the difference in the numbers of refills.
    """
    often, seldom = (count_refills(depth, batch_size, cost) for cost in (COSTS[0], COSTS[-1]))
    most, fewest = (np.array(measured.processor[name]) for name in (streams[0], streams[-1]))
    updates, refills = np.subtract(often, seldom)
    return float(np.median(((most - fewest) / busy - updates) / refills))


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
    run_command(app, "python -m benchmarks.refill_cost")
