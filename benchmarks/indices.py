"""Time of the indices against as many plain evaluations: `python -m benchmarks.indices`."""

from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import tensorflow as tf
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from benchmarks.random_batches import CLASSES, random_batch
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv.indices.measure import REPEATS
from keras_iterconv.tasks import is_wrong


def indices(
    model: Annotated[
        str, typer.Option(help="Name of a resnet_w*, icr_w* or pcr_w*.")
    ] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Number of blocks in a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Number of images in a batch.")] = 64,
    batches: Annotated[int, typer.Option(help="Number of batches.")] = 2,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    rounds: RoundsOption = 3,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time `measure_indices` and plain evaluations of the same model, one for each schedule.

    Each call of `measure_indices` traces its functions again; its time for one image is nearly the
    time of tracing. The plain evaluation is traced before the timing.
    """
    given = {"name": model, "blocks": blocks, "batch_size": batch_size, "side": side}
    measures = Candidate("benchmarks.indices:Indices", given, {"batches": batches})
    plain = Candidate("benchmarks.indices:Evaluations", given, {"batches": batches})
    with Bench(device) as bench:
        schedules = bench.ask(plain, "schedules")
        evaluations = f"{schedules} evaluations"
        candidates = {
            "measure_indices": measures,
            # The graph is that of the same net: one process.
            "measure_indices, one image": measures._replace(call={"batches": 0}),
            evaluations: plain,
        }
        measured = bench.measure(candidates, rounds)
    lines, rows = [], {}
    for name, runs in measured.seconds.items():
        ratio = measured.speedup(evaluations, name)
        rows[name] = {"seconds": runs, "speedup_over_evaluations": ratio._asdict()}
        spread = f"{min(runs):.2f} to {max(runs):.2f}"
        times = [f"{measured.median(name):.2f}", spread]
        lines.append([name, *times, f"{ratio.median:.2f}", ratio.interval])
    title = (
        f"Indices of {model}, {blocks} blocks a stage, {batches} batches of {batch_size}, "
        f"{side}x{side}x3"
    )
    header = ["candidate", "seconds, median", "min to max"]
    header += ["speed-up over evaluations", "95% interval"]
    rest = {"schedules": schedules, "rounds": measured.rounds_facts()}
    show(title, header, lines, {**rest, "candidates": rows}, output)


class Indices:
    """Measures the indices of a model with random weights on random images.

    Args:
        name: Name of the model.
        blocks: Number of blocks in a stage.
        batch_size: Number of images in a batch.
        side: Height and width of an image.
    """

    def __init__(self, name: str, blocks: int, batch_size: int, side: int):
        keras.utils.set_random_seed(0)
        self.images, self.labels = random_batch(batch_size, side)
        self.net = ki.create_model(name, self.images.shape[1:], CLASSES, blocks=blocks)

    def run(self, batches: int) -> None:
        """Measure the indices on as many batches; 0 for one image."""
        first = slice(None if batches else 1)
        batch = (self.images[first], self.labels[first])
        ki.measure_indices(self.net, [batch] * max(batches, 1))


class Evaluations(Indices):
    """Evaluates the same model as often as the indices do."""

    def __init__(self, name: str, blocks: int, batch_size: int, side: int):
        super().__init__(name, blocks, batch_size, side)
        self.forward = tf.function(lambda x: self.net(x, training=False), reduce_retracing=True)

    def run(self, batches: int) -> None:
        """Evaluate the batches, once for each schedule."""
        for _ in range(self.schedules() * batches):
            is_wrong(self.forward(self.images), self.labels)

    def schedules(self) -> int:
        """Return the number of schedules."""
        return count_schedules(self.net)


def count_schedules(model: keras.Model) -> int:
    """Return the number of schedules of blocks for which the indices evaluate the model.

    The schedules are the unchanged one and, for each stage, a readout after each block but the
    last, each block left out, and the last block repeated.
    """
    schedules: set[tuple] = {()}
    for block in ki.iterated_blocks(model):
        if not block.scheduled:
            continue
        plain = tuple(range(block.max_unroll))
        perturbed = [
            *(plain[:t] for t in plain[1:]),
            *(plain[:t] + plain[t + 1 :] for t in plain),
            *(plain + plain[-1:] * times for times in range(1, REPEATS + 1)),
        ]
        schedules |= {(block.name, schedule) for schedule in perturbed}
    return len(schedules)


app = make_command_app(indices)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.indices")
