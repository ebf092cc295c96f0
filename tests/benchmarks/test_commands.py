"""The commands run, on the smallest nets, and write what they say."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import importlib
import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import (
    all_reduce,
    calibrated_depth,
    compaction,
    growth_plot,
    indices,
    inference,
    memory,
    onnx_inference,
    onnx_threads,
    peak_memory,
    refill_cost,
    sequence_depth,
    settling_weights,
    train_step,
)
from benchmarks.first_step_candidate import FirstStep

TINY = ["--blocks", "1", "--batch-size", "2", "--side", "8", "--rounds", "1"]


def run(module, *options):
    result = CliRunner().invoke(module.app, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "name",
    [
        "all_reduce",
        "calibrated_depth",
        "compaction",
        "coupling_cost",
        "export_matrix",
        "first_step",
        "growth",
        "indices",
        "inference",
        "int8_files",
        "iterate_cost",
        "litert_inference",
        "memory",
        "mixed_lengths",
        "onnx_inference",
        "onnx_threads",
        "refill_cost",
        "sequence_depth",
        "settling_weights",
        "train_step",
        "__main__",
    ],
)
def test_the_help_has_the_layout_of_all_commands(name):
    shown = run(importlib.import_module(f"benchmarks.{name}"), "--help")
    assert "\n\nOptions:\n" in shown
    assert "  --help " in shown.split("\nOptions:\n")[1].splitlines()[-1]


@pytest.mark.pytorch
@pytest.mark.parametrize(
    ("model", "options", "candidates"),
    [
        (
            "nais10",
            ["--all", "--mixed-precision"],
            {
                "ours, unroll",
                "ours, recompute",
                "ours, frozen",
                "ours, unroll, bare step",
                "unrolled graph, bare step",
                "PyTorch, autocast",
                "ours, frozen, bfloat16",
            },
        ),
        ("resnet_w8", [], {"ours", "ours, coupling 0.9", "ours, cap 0.95, steps alone"}),
    ],
    ids=["nais10", "resnet_w8"],
)
def test_train_step(model, options, candidates, tmp_path):
    file = tmp_path / "out.json"
    run(train_step, "--model", model, *TINY, "--steps", "1", *options, "--output", file)
    content = json.loads(file.read_text())
    ceiling = np.median(content["rounds"]["control_flops_per_second"])
    assert set(content["candidates"]) >= {"PyTorch, eager", "stock Keras layers", *candidates}
    for row in content["candidates"].values():
        (rate,) = row["images_per_second"]
        share = rate * row["flops_per_image"] / ceiling
        assert row["share_of_matrix_product"] == pytest.approx(share)
        for baseline, ratio in row["ratios"].items():
            (other,) = content["candidates"][baseline]["images_per_second"]
            assert ratio["median"] == pytest.approx(rate / other)


def test_compaction(tmp_path):
    file = tmp_path / "out.json"
    sizes = ["--blocks", "2", "--filters", "4", "--side", "8", "--batch-size", "20"]
    run(compaction, *sizes, "--rounds", "1", "--output", file)
    rows = {row["case"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["spread evenly"]["depths"] == [2, 10]
    assert rows["between 5 and 7"]["depths"] == [5, 7]
    assert rows["all stop together"]["depths"] == [3, 3]
    for row in rows.values():
        (ours,), (better,) = (row["seconds"][name] for name in ("ours", row["better"]))
        assert row["ours_to_better"]["median"] == pytest.approx(ours / better)


def test_memory_of_a_fresh_process(tmp_path):
    # Of two processes the one that trains more images takes more.
    few, many = (memory._measure_peak("frozen", 1, 1, n, 32, 1) for n in (1, 64))
    states = 4 * 64 * 32 * 32 * 16
    assert few > 0
    assert many - few > states


def test_a_peak_is_read_in_bytes():
    idle = peak_memory.start_peak()
    block = np.ones(50_000_000, np.uint8)
    assert peak_memory.read_memory("VmHWM") - idle > 0.9 * block.nbytes
    del block


@pytest.fixture(scope="module")
def chain():
    return ki.create_model("nais_adaptive", (8, 8, 1), 10, blocks=2, threshold=0.5, max_unroll=6)


def test_inference(chain, tmp_path):
    chain.save(tmp_path / "net.keras")
    file = tmp_path / "out.json"
    options = ["--weights", tmp_path / "net.keras", "--images", "6", "--rounds", "1"]
    sizes = ["--batch-size", "1", "--batch-size", "3", "--threshold", "0.5", "--threshold", "5"]
    run(inference, *options, *sizes, "--output", file)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["batch_size"], row["threshold"]) for row in rows] == [
        (1, None), (1, 0.5), (1, 5), (3, None), (3, 0.5), (3, 5)
    ]  # fmt: skip
    for row in rows:
        assert row["depths_unlike_the_masked_loop"] == 0
        assert row["share_of_ideal"] == pytest.approx(
            row["speedup"]["median"] * row["mean_depth"] / 6
        )
    assert rows[0]["mean_depth"] == 6
    assert rows[1]["mean_depth"] < 6


def test_schedules_are_counted_once():
    # Three blocks: 2 early, 3 left out of which the last is an early one, 16 repeats; and as is.
    model = ki.create_model("resnet_w8", (8, 8, 3), 4, blocks=3)
    assert indices.count_schedules(model) == 1 + 3 * (2 + 2 + 16)
    assert indices.count_schedules(ki.create_model("resnet_w8", (8, 8, 3), 4, blocks=1)) == 1 + 51


def test_indices(tmp_path):
    file = tmp_path / "out.json"
    run(indices, "--model", "resnet_w8", *TINY, "--batches", "1", "--output", file)
    content = json.loads(file.read_text())
    assert content["schedules"] == 52
    assert len(content["candidates"]["52 evaluations"]["seconds"]) == 1


def test_sequence_depth(tmp_path):
    file, figure = tmp_path / "out.json", tmp_path / "figure.png"
    sizes = ["--lengths", "3,30", "--sequences", "4"]
    run(sequence_depth, *sizes, "--output", file, "--figure", figure)
    found = json.loads(file.read_text())
    for bits, row in found["lengths"].items():
        assert len(row["depth"]) == 4
        # No update reaches more than five positions, and the last limit is beyond every depth.
        assert row["by_updates"]["1"] < 1 or bits == "3"
        assert max(row["depth"]) < 200
        assert row["by_updates"]["200"] == row["accuracy"] == 1
    shallow, deep = (row["depth"] for row in found["lengths"].values())
    assert max(shallow) < min(deep)
    assert found["rank_correlation"] == pytest.approx(0.9, abs=0.1)
    assert figure.stat().st_size > 10_000


def test_calibrated_depth(tmp_path):
    options = ["--nets", "README", "--seeds", "0", "--epochs", "1", "--samples", "100"]
    shown = run(calibrated_depth, *options, "--output", tmp_path / "out.json")
    own, loss, updates = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (own["threshold"], own["test_loss"], own["test_loss_error"]) == (0.3, 0, 0)
    assert 5 <= own["rows"] <= 8
    # 100 images cannot show that the loss is below 2 / 102.
    assert loss["threshold"] == 0.3
    assert loss["test_updates"] == own["test_updates"]
    assert updates["updates"] <= 12
    assert updates["test_loss"] == pytest.approx(own["test_accuracy"] - updates["test_accuracy"])
    assert f"{loss['met'] + updates['met']} of 2 budgets met" in shown


def test_refill_cost(tmp_path):
    sizes = ["--sequences", "24", "--batch-size", "4", "--lengths", "3,12", "--rounds", "1"]
    shown = run(refill_cost, *sizes, "--output", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["other_results"] == [0, 0, 0, 0]
    assert "stream" in shown


def test_the_updates_and_refills_of_a_stream_are_counted_by_its_rule():
    # (3, 1) after the first update, in which 3 took the place of 1.
    assert refill_cost.count_refills(np.array([1, 2, 3]), 2, 0) == (4, 1)
    # It waits one update more.
    assert refill_cost.count_refills(np.array([1, 2, 3]), 2, 1) == (5, 1)


def test_settling_weights(tmp_path):
    options = ["--weights", "5", "--seeds", "0", "--epochs", "1", "--max-unroll", "2"]
    run(settling_weights, *options, "--output", tmp_path / "out.json")
    ((found,),) = json.loads((tmp_path / "out.json").read_text())["weights"].values()
    assert 1 <= found["updates"] <= 2
    assert 0 <= found["at_limit"] <= 1


def test_onnx_inference(tmp_path):
    options = ["--blocks", "1", "--side", "8", "--images", "4", "--rounds", "1"]
    batches = ["--batch-size", "1", "--batch-size", "4"]
    run(onnx_inference, "nais_adaptive", *options, *batches, "--output", str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["batch_size"], row["batches"]) for row in rows] == [(1, 4), (4, 1)]
    for row in rows:
        assert 1 < row["mean_depth"] < row["max_unroll"] == 10
        assert row["ideal_speedup"] == pytest.approx(10 / row["mean_depth"])
        assert row["depths_unlike_keras"] == 0
        assert len(row["seconds"]) == 5


def test_onnx_threads(tmp_path):
    options = ["--batch-size", "2", "--images", "4", "--rounds", "1"]
    run(onnx_threads, "nais_mnist_adaptive", *options, "--output", str(tmp_path / "threads.json"))
    (row,) = json.loads((tmp_path / "threads.json").read_text())["rows"]
    for kind in ("seconds", "processor_seconds"):
        assert list(row[kind]) == ["1 thread", "2 threads", "2 threads that spin"]
        assert all(values[0] > 0 for values in row[kind].values())


def test_all_reduce(tmp_path):
    """Each worker also checks its sums."""
    sizes = ["--numbers", "1", "--numbers", "3000"]
    shown = run(all_reduce, *sizes, "--rounds", "3", "--output", tmp_path / "out.json")
    seconds = json.loads((tmp_path / "out.json").read_text())["seconds"]
    assert {size: len(times) for size, times in seconds.items()} == {"1": 3, "3000": 3}
    assert all(each > 0 for times in seconds.values() for each in times)
    assert "3,000" in shown


def test_the_figure_of_growth(tmp_path):
    sizes = {"updates": (1, 2, 5), "width": (8, 16), "batch": (2, 4), "image": (8, 16)}
    seconds = {
        panel: {
            name: {str(size): [0.1 * size, 0.2 * size] for size in values}
            for name in ("ours, unroll", "PyTorch, eager")
        }
        for panel, values in sizes.items()
    }
    base = {"updates": 10, "width": 16, "batch": 32, "image": 32}
    content = {"title": "t", "processor": "m", "base": base, "seconds": seconds}
    figure = growth_plot.plot_growth(content, tmp_path / "growth.png")
    assert len(figure.axes) == 4
    for axes in figure.axes:
        texts = [text.get_text() for text in axes.texts]
        assert {"ours, unroll", "PyTorch, eager"} <= set(texts)
        heights = [
            text.get_position()[1]
            for text in axes.texts
            if text.get_text() in ("ours, unroll", "PyTorch, eager")
        ]
        assert abs(heights[0] - heights[1]) > 0.04
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_first_step_ends_a_training():
    begin = time.monotonic()
    seconds = FirstStep(["--model", "nais_mnist", "--limit-train", "128"]).run()
    # TensorFlow alone takes longer to load.
    assert 1 < seconds < time.monotonic() - begin


def test_a_training_without_a_step_is_no_time():
    with pytest.raises(RuntimeError, match=r"no training step: .*no_such_model"):
        FirstStep(["--model", "no_such_model"]).run()
