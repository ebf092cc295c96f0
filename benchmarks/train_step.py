"""Training throughput against stock Keras layers and PyTorch: `python -m benchmarks.train_step`."""

from collections.abc import Mapping
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.rates import show_rates
from benchmarks.random_batches import random_batch
from benchmarks.steps import TARGET, check_equal, torch_twin
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

# Those of blocks with ReLU.
GRADIENTS = [mode.name for mode in ki.unrolling.MODES.values() if "two_sided" not in mode.needs]
PYTORCH, STOCK = "PyTorch, eager", "stock Keras layers"
AUTOCAST = "PyTorch, autocast"
CAPPED = "ours, cap 0.95, steps alone"
# Digits that agree: bfloat16 has eight bits.
TOLERANCE = {False: 1e-3, True: 0.1}


def train_step(
    model: Annotated[str, typer.Option(help="nais10, nais1 or resnet_w8 to _w64.")] = "nais10",
    blocks: Annotated[int | None, typer.Option(help="Number of blocks in a stage.")] = None,
    batch_size: Annotated[int, typer.Option(help="Number of images in a step.")] = 64,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Number of steps in a round.")] = 2,
    rounds: RoundsOption = 7,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Add a NAIS-Net of stock layers and an unrolled graph."),
    ] = False,
    mixed_precision: Annotated[
        bool,
        typer.Option("--mixed-precision", help="Add bfloat16, here and by PyTorch's autocast."),
    ] = False,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time training steps of our model, by `fit` and without it, and of equal models elsewhere.

    The other models are of stock Keras layers and in PyTorch. GFLOP/s counts the convolutions that
    the gradient needs, and not those that are recomputed.
    """
    images, labels = random_batch(batch_size, side)
    given = {} if blocks is None else {"blocks": blocks}
    batch = {"name": model, "images": images, "labels": labels, "steps": steps}
    make = _nais_candidates if model.startswith("nais") else _residual_candidates
    ours, twins = make(batch, given, everything, mixed_precision)
    first = next(iter(ours.values()))
    baselines = [PYTORCH]
    with Bench(device) as bench:
        candidates = {PYTORCH: torch_twin(bench, first), **ours, **twins}
        if mixed_precision:
            candidates = {AUTOCAST: torch_twin(bench, first, bfloat16=True), **candidates}
            baselines = [AUTOCAST, next(iter(ours))]
        bench.open(candidates)
        for half, tolerance in TOLERANCE.items():
            # The cap changes the kernels.
            others = {
                name: each
                for name, each in candidates.items()
                if _is_half(each) == half and name != CAPPED
            }
            check_equal(bench, {"ours": first, **others}, images[:4], tolerance)
        measured = bench.measure(candidates, rounds)
        flops = {
            name: bench.ask(each if each.target == TARGET else first, "flops")
            for name, each in candidates.items()
        }
        facts = {}
        if CAPPED in candidates:
            facts["seconds_converging_caps"] = bench.ask(candidates[CAPPED], "converge_caps")
        updates = bench.ask(first, "updates")
    title = (
        f"Training steps of {model}, {updates} updates an image, batch {batch_size}, "
        f"{side}x{side}x3"
    )
    show_rates(title, measured, steps * batch_size, baselines, output, flops, **facts)
    for text, seconds in facts.items():
        print(f"{text.replace('_', ' ')}, after each epoch: {seconds:.1f}")


def _is_half(candidate: Candidate) -> bool:
    return candidate.arguments.get("bfloat16", False)


def _nais_candidates(
    batch: Mapping[str, Any], given: Mapping[str, Any], everything: bool, half: bool
) -> tuple[dict[str, Candidate], dict[str, Candidate]]:
    """Return our candidates for a NAIS-Net, and those of other layers."""

    def candidate(gradient="unroll", **settings):
        overrides = {**given, "gradient": gradient}
        return Candidate(TARGET, {**batch, "overrides": overrides, **settings})

    ours = {f"ours, {gradient}": candidate(gradient) for gradient in GRADIENTS}
    ours["ours, unroll, bare step"] = candidate(bare=True)
    ours["ours, unroll, whole batch"] = candidate(parts=False)
    if half:
        ours |= {
            f"ours, {gradient}, bfloat16": candidate(gradient, bfloat16=True)
            for gradient in GRADIENTS
        }
    twins = {}
    if everything:
        twins[STOCK] = candidate(twin="stock")
        twins["unrolled graph, bare step"] = candidate(twin="unrolled", bare=True)
    return ours, twins


def _residual_candidates(
    batch: Mapping[str, Any], given: Mapping[str, Any], everything: bool, half: bool
) -> tuple[dict[str, Candidate], dict[str, Candidate]]:
    """Return our candidates for a ResNet, and that of stock layers."""

    def candidate(overrides=None, **settings):
        return Candidate(TARGET, {**batch, "overrides": {**given, **(overrides or {})}, **settings})

    ours = {
        "ours": candidate(),
        "ours, bare step": candidate(bare=True),
        "ours, coupling 0.9": candidate(options={"coupling": 0.9}),
        CAPPED: candidate({"lipschitz_cap": 0.95}),
    }
    if half:
        ours["ours, bfloat16"] = candidate(bfloat16=True)
    return ours, {STOCK: candidate(twin="stock")}


app = make_command_app(train_step)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.train_step")
