"""Training throughput against stock Keras layers and PyTorch: `python -m benchmarks.train_step`."""

import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import typer

from iterconv.command_help import make_command_app

from . import nais_nets, residual_nets
from .flops import training_flops
from .steps import (
    CLASSES,
    bare_steps,
    check_equal,
    copy_of,
    fit_steps,
    random_batch,
    torch_steps,
)
from .timing import interleave, show_rates

# Those of blocks with ReLU.
GRADIENTS = [mode.name for mode in ki.unrolling.MODES.values() if "two_sided" not in mode.needs]
PYTORCH = "PyTorch, eager"


class Candidate(NamedTuple):
    """An implementation of the training step to compare.

    Attributes:
        run: A function that trains some steps, and returns their seconds or None.
        flops: Number of operations for one image in a step.
    """

    run: Callable[[], float | None]
    flops: int


def train_step(
    model: Annotated[str, typer.Option(help="nais10, nais1 or resnet_w8 to _w64.")] = "nais10",
    blocks: Annotated[int | None, typer.Option(help="Number of blocks in a stage.")] = None,
    batch_size: Annotated[int, typer.Option(help="Number of images in a step.")] = 64,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Number of steps in a round.")] = 2,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 7,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Add a NAIS-Net of stock layers and an unrolled graph."),
    ] = False,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time training steps of our model, by `fit` and without it, and of equal models elsewhere.

    The other models are of stock Keras layers and in PyTorch. GFLOP/s counts the convolutions that
    the gradient needs, and not those that are recomputed.
    """
    keras.utils.set_random_seed(0)
    images, labels = random_batch(batch_size, side)
    ours = ki.create_model(model, images.shape[1:], CLASSES, **_given(blocks))
    capped, facts = None, {}
    if model.startswith("nais"):
        candidates = _nais_candidates(ours, model, blocks, (images, labels, steps), everything)
    else:
        candidates, capped = _residual_candidates(ours, model, blocks, (images, labels, steps))
    for candidate in candidates.values():
        candidate.run()
    seconds = interleave({name: candidate.run for name, candidate in candidates.items()}, rounds)
    if capped is not None:
        begin = time.perf_counter()
        capped.converge_caps()
        facts["seconds_converging_caps"] = time.perf_counter() - begin
    title = (
        f"Training steps of {model}, {ki.processing_depth(ours)} updates an image, "
        f"batch {batch_size}, {side}x{side}x3"
    )
    flops = {name: candidate.flops for name, candidate in candidates.items()}
    show_rates(title, seconds, steps * batch_size, PYTORCH, output, flops, **facts)
    if facts:
        print(f"converging the caps, after each epoch: {facts['seconds_converging_caps']:.1f} s")


def _given(blocks: int | None) -> dict[str, int]:
    return {} if blocks is None else {"blocks": blocks}


def _nais_candidates(
    ours: keras.Model,
    name: str,
    blocks: int | None,
    batch: tuple[np.ndarray, np.ndarray, int],
    everything: bool,
) -> dict[str, Candidate]:
    """Return the candidates for a NAIS-Net."""
    from .torch_layers import evaluate

    theirs = nais_nets.torch_twin(ours)
    twins = {}
    if everything:
        twins["stock Keras layers"] = nais_nets.stock_twin(ours)
        twins["unrolled graph, bare step"] = nais_nets.unrolled_twin(ours)
    checked: dict[str, Callable[..., Any]] = {
        twin: lambda x, net=net: net(x, training=False) for twin, net in twins.items()
    }
    checked[PYTORCH] = lambda images: evaluate(theirs, images)
    check_equal(ours, checked, batch[0][:4])

    exact = training_flops(ours)
    candidates = {PYTORCH: Candidate(torch_steps(theirs, *batch), exact)}
    for gradient in GRADIENTS:
        net = copy_of(ours, name, gradient=gradient, **_given(blocks))
        candidates[f"ours, {gradient}"] = Candidate(fit_steps(net, *batch), training_flops(net))
    net = copy_of(ours, name, **_given(blocks))
    candidates["ours, unroll, bare step"] = Candidate(bare_steps(net, *batch), exact)
    for twin, net in twins.items():
        make = bare_steps if "bare" in twin else fit_steps
        candidates[twin] = Candidate(make(net, *batch), exact)
    return candidates


def _residual_candidates(ours, name, blocks, batch):
    """Return the candidates for a ResNet, and the model with caps."""
    from .torch_layers import evaluate

    stock, theirs = residual_nets.stock_twin(ours), residual_nets.torch_twin(ours)
    checked = {
        "stock Keras layers": lambda images: stock(images, training=False),
        PYTORCH: lambda images: evaluate(theirs, images),
    }
    check_equal(ours, checked, batch[0][:4])
    coupled = copy_of(ours, name, **_given(blocks))
    shape = batch[0].shape[1:]
    capped = ki.create_model(name, shape, CLASSES, lipschitz_cap=0.95, **_given(blocks))
    runs = {
        PYTORCH: torch_steps(theirs, *batch),
        "ours": fit_steps(ours, *batch),
        "ours, bare step": bare_steps(copy_of(ours, name, **_given(blocks)), *batch),
        "ours, coupling 0.9": fit_steps(coupled, *batch, coupling=0.9),
        "ours, cap 0.95, steps alone": fit_steps(capped, *batch),
        "stock Keras layers": fit_steps(stock, *batch),
    }
    flops = training_flops(ours)
    return {name: Candidate(run, flops) for name, run in runs.items()}, capped


app = make_command_app(train_step)

if __name__ == "__main__":
    app()
