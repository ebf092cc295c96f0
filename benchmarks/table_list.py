"""The tables that `python -m benchmarks` makes."""

from typing import NamedTuple


class MeasuredTable(NamedTuple):
    """A benchmark with its options.

    Attributes:
        module: Name of the module in `benchmarks`.
        minutes: About how long it takes on two idle cores.
        options: Its options, in one text.
        quick: Further options for a trial with small sizes.
        rounds: Number of rounds; None for that of the benchmark.
        timed: Whether it has `--rounds` and `--device`.
        gpu: Whether its candidates run on a GPU too.
    """

    module: str
    minutes: float
    options: str = ""
    quick: str = ""
    rounds: int | None = None
    timed: bool = True
    gpu: bool = True


SMALL = "--blocks 1 --batch-size 4 --side 8"
TINY_STEPS = f"{SMALL} --steps 1"
# Colour images, after one epoch on some of them: enough for images to stop at different depths.
INFERENCE = "--dataset cifar10 --limit-train 2000 --epochs 1 --threshold 1e-4 --threshold 1"
TINY_INFERENCE = "--dataset digits --blocks 1 --images 4 --batch-size 4"
TABLES = {
    "train_step_nais10": MeasuredTable("train_step", 8, "--steps 1", TINY_STEPS, rounds=5),
    "train_step_bfloat16": MeasuredTable(
        "train_step", 5, "--blocks 3 --steps 4 --mixed-precision", TINY_STEPS
    ),
    "train_step_all": MeasuredTable("train_step", 5, "--blocks 3 --steps 4 --all", TINY_STEPS),
    "train_step_resnet_w16": MeasuredTable(
        "train_step", 6, "--model resnet_w16 --steps 2", f"--model resnet_w8 {TINY_STEPS}"
    ),
    "coupling_cost": MeasuredTable(
        "coupling_cost", 4, "", f"--model resnet_w8 {TINY_STEPS}", rounds=15
    ),
    "first_step": MeasuredTable("first_step", 3, "", "--model nais_mnist"),
    "memory": MeasuredTable("memory", 6, "--steps 1", TINY_STEPS, timed=False, gpu=False),
    "inference": MeasuredTable("inference", 8, INFERENCE, TINY_INFERENCE),
    "inference_parts": MeasuredTable("inference", 8, f"{INFERENCE} --parts", TINY_INFERENCE),
    "compaction": MeasuredTable("compaction", 2, "", f"{SMALL} --filters 4"),
    "indices": MeasuredTable("indices", 6, "", f"--model resnet_w8 {SMALL} --batches 1", rounds=3),
    "iterate_cost": MeasuredTable("iterate_cost", 2, "", TINY_STEPS),
    "growth": MeasuredTable(
        "growth", 10, "", f"{SMALL.replace('side', 'image')} --panel updates", rounds=3
    ),
    "mixed_lengths": MeasuredTable("mixed_lengths", 2, "", "--batch-size 4 --lengths 3,12"),
    "refill_cost": MeasuredTable(
        "refill_cost", 4, "", "--sequences 24 --batch-size 4 --lengths 3,12"
    ),
    "onnx_inference": MeasuredTable(
        "onnx_inference", 3, "nais_adaptive_digits nais_mnist_adaptive", "--images 4"
    ),
    "onnx_threads": MeasuredTable(
        "onnx_threads", 2, "nais_adaptive_digits nais_mnist_adaptive", "--images 4", gpu=False
    ),
    "litert_inference": MeasuredTable(
        "litert_inference", 2, "", "--side 8 --blocks 1 --images 4 --batch-size 4", gpu=False
    ),
    "all_reduce_2_workers": MeasuredTable(
        "all_reduce", 1, "", "--numbers 1000", timed=False, gpu=False
    ),
    "all_reduce_4_workers": MeasuredTable(
        "all_reduce", 2, "--workers 4", "--numbers 1000", timed=False, gpu=False
    ),
    "int8_files": MeasuredTable("int8_files", 2, "nais_adaptive_digits", "--images 64", gpu=False),
}


def command_of(
    table: MeasuredTable, quick: bool, rounds: int | None, device: str
) -> tuple[str, list[str]]:
    """Return the module of a table and its options, without that of the output.

    Args:
        table: The table.
        quick: Whether the sizes are small.
        rounds: Number of rounds; None for that of the table.
        device: Device of the candidates.
    """
    if rounds is None:
        rounds = 1 if quick else table.rounds
    options = table.options.split() + (table.quick.split() if quick else [])
    if table.timed:
        options += ["--device", device]
        options += [] if rounds is None else ["--rounds", str(rounds)]
    return f"benchmarks.{table.module}", options
