"""What the indices cost, against as many plain evaluations: `python -m benchmarks.indices`."""

from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import tensorflow as tf
import typer

from benchmarks.measured_tables import show
from keras_iterconv.indices.measure import REPEATS
from keras_iterconv.metrics import is_wrong

from .steps import CLASSES, random_batch
from .timing import describe_machine, interleave, speedup

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def indices(
    model: Annotated[str, typer.Option(help="One of resnet_w*, icr_w* and pcr_w*.")] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Blocks a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    batches: Annotated[int, typer.Option(help="Batches that are measured on.")] = 2,
    side: Annotated[int, typer.Option(help="Height and width of an image.")] = 32,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 3,
    output: Annotated[str | None, typer.Option(help="A JSON file to write.")] = None,
) -> None:
    """Time `measure_indices` and plain evaluations of the same net, one for each of its schedules.

    Each call of `measure_indices` traces its functions anew; what it takes for one image is nearly
    that alone. The plain evaluation is traced before.
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
    header = ["candidate", "seconds, median", "least to most", "faster than evaluations by"]
    content = {"machine": describe_machine(), "schedules": schedules, **rows}
    show(title, header, lines, content, output)


def count_schedules(model) -> int:
    """Return in how many ways the indices look at the net.

    As it is; and for each stage, read out after each block but the last, without each block, and
    with the last one repeated.
    """
    schedules = {()}
    for block in ki.iterated_blocks(model):
        if not isinstance(block, ki.ResidualStage):
            continue
        plain = tuple(range(block.blocks))
        perturbed = [
            *(plain[:t] for t in plain[1:]),
            *(plain[:t] + plain[t + 1 :] for t in plain),
            *(plain + plain[-1:] * times for times in range(1, REPEATS + 1)),
        ]
        schedules |= {(block.name, schedule) for schedule in perturbed}
    return len(schedules)


def _no_value(_) -> None:
    """Return nothing: `interleave` takes a value for seconds."""


if __name__ == "__main__":
    app()
