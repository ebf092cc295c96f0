"""Time of the indices against as many plain evaluations: `python -m benchmarks.indices`."""

from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv.indices.measure import REPEATS
from keras_iterconv.tasks import is_wrong

from .random_batches import CLASSES, random_batch
from .timing import describe_machine, interleave, speedup


def indices(
    model: Annotated[
        str, typer.Option(help="Name of a resnet_w*, icr_w* or pcr_w*.")
    ] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Number of blocks in a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Number of images in a batch.")] = 64,
    batches: Annotated[int, typer.Option(help="Number of batches.")] = 2,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 3,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time `measure_indices` and plain evaluations of the same model, one for each schedule.

    Each call of `measure_indices` traces its functions again; its time for one image is nearly the
    time of tracing. The plain evaluation is traced before the timing.
    """
    images, labels = random_batch(batch_size, side)
    net = ki.create_model(model, images.shape[1:], CLASSES, blocks=blocks)
    data = [(images, labels)] * batches
    schedules = count_schedules(net)
    forward = tf.function(lambda x: net(x, training=False), reduce_retracing=True)

    def evaluate():
        for _ in range(schedules):
            for x, y in data:
                is_wrong(forward(x), y)

    plain = f"{schedules} evaluations"
    candidates = {
        "measure_indices": lambda: _no_value(ki.measure_indices(net, data)),
        "measure_indices, one image": lambda: _no_value(
            ki.measure_indices(net, [(images[:1], labels[:1])])
        ),
        plain: evaluate,
    }
    forward(images)
    ki.measure_indices(net, data)
    seconds = interleave(candidates, rounds)
    lines, rows = [], {}
    for name, runs in seconds.items():
        ratio = speedup(seconds[plain], runs)
        rows[name] = {"seconds": runs, "speedup_over_evaluations": ratio}
        spread = f"{min(runs):.2f} to {max(runs):.2f}"
        lines.append([name, f"{np.median(runs):.2f}", spread, f"{ratio:.2f}"])
    title = (
        f"Indices of {model}, {blocks} blocks a stage, {batches} batches of {batch_size}, "
        f"{side}x{side}x3; {describe_machine()}"
    )
    header = ["candidate", "seconds, median", "min to max", "speed-up over evaluations"]
    content = {"machine": describe_machine(), "schedules": schedules, **rows}
    show(title, header, lines, content, output)


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


def _no_value(_: Any) -> None:
    """Return None, since `interleave` would take a value for seconds."""


app = make_command_app(indices)

if __name__ == "__main__":
    app()
