"""A whole run: its files, its numbers, and its going on after it was cut off."""

import contextlib
import csv
import io
import json
import re
import shutil

import keras
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import keras_iterconv as ki
from iterconv.command_errors import TrainingDivergedError, UserError
from keras_iterconv import datasets
from keras_iterconv.depth.evaluation import evaluate
from training import callbacks as callbacks
from training import session
from training.run_folder import RunFolder
from training.settings import make_settings

MODELS = ("nais_adaptive", "resnet54", "nais_mnist")


@pytest.fixture
def quick(small_nets):
    """Return a function that makes the settings of a run of some seconds."""

    def settings(model="nais10", **given):
        return make_settings(
            model=model, **{"epochs": 2, "batch_size": 32, "limit_train": 96, **given}
        )

    return settings


@pytest.fixture
def console():
    """Return a console that keeps what is written to it."""
    return Console(record=True, width=200, file=io.StringIO())


def accuracy(model, split, data):
    """Compute the accuracy from the raw pictures, without the pipeline."""
    images = (split.images.astype("float32") - data.mean) / data.std
    return np.mean(np.argmax(model.predict(images, verbose=0), axis=1) == split.labels)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_leaves_its_folder(quick, console, tmp_path, model):
    settings = quick(model)
    result = session.start(settings, tmp_path / "run", console)
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert files == {
        ".lock",
        "config.json",
        "history.csv",
        "tensorboard",
        "last.keras",
        "best.keras",
        "curves.png",
        "result.json",
    }
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    with (tmp_path / "run" / "history.csv").open() as stream:
        assert [int(row["epoch"]) for row in csv.DictReader(stream)] == [1, 2]

    data = datasets.load("digits", limit_train=96)
    last = keras.models.load_model(tmp_path / "run" / "last.keras")
    for part in ("train", "test"):
        expected = accuracy(last, getattr(data, part), data)
        assert result[f"{part}_accuracy"] == pytest.approx(expected)
    gap = result["train_accuracy"] - result["test_accuracy"]
    assert result["generalization_gap"] == pytest.approx(gap)
    assert result["parameters"] == last.count_params()
    assert f"{result['test_accuracy']:.2%}" in console.export_text()


def test_a_run_of_stages_measures_their_indices(quick, console, tmp_path):
    settings = quick(
        "resnet_w8", blocks=2, width=4, initial_gamma=0.5, lipschitz_cap=0.9, epochs=1,
        coupling=0.5, coupling_kernel="triangular", coupling_members="0:2", index_images=100,
    )  # fmt: skip
    result = session.start(settings, tmp_path / "run", console)
    assert (tmp_path / "run" / "indices.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result

    last = keras.models.load_model(tmp_path / "run" / "last.keras")
    coupling = last.coupling
    assert (coupling.strength, coupling.kernel, coupling.members) == (
        0.5,
        "triangular",
        slice(0, 2),
    )
    stages = [block for block in last.layers if hasattr(block, "skip_from")]
    assert {(s.blocks, s.lipschitz_cap, s.shared_initialization) for s in stages} == {
        (2, 0.9, True)
    }
    assert [(s.filters, s.initial_gamma) for s in stages] == [(4, 0.5), (8, 0.5), (16, 0.5)]
    indices = result["indices"]
    assert indices["stages"] == ["stage1", "stage2", "stage3"]
    assert indices["samples"] == 100
    data = datasets.load("digits", limit_train=96)
    first = datasets.Split(data.test.images[:100], data.test.labels[:100])
    assert indices["error"] == pytest.approx(1 - accuracy(last, first, data))
    text = console.export_text()
    assert "0.5 of the blocks' mean gradient" in text
    assert f"Indices on 100 samples: error {indices['error']:.2%}" in text


def test_a_run_without_a_validation_part_goes_on_and_says_so(quick, console, tmp_path, monkeypatch):
    settings = quick(
        "nais_mnist", epochs=3, threshold=0.03, validation_share=0.0, pixels="unit", clip_norm=0.0
    )
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(settings, tmp_path, console)
    result = session.resume(tmp_path, console)
    files = {file.name for file in tmp_path.iterdir()}
    assert "best.keras" not in files
    assert {"last.keras", "curves.png", "result.json"} <= files
    with (tmp_path / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["val_loss"] + row["val_accuracy"] for row in rows] == [""] * 3

    unknown = ("validation_accuracy", "best_epoch", "best_validation_accuracy")
    assert [result[name] for name in unknown] == [None] * 3
    test = datasets.load("digits").test
    last = keras.models.load_model(tmp_path / "last.keras")
    predictions = np.argmax(last.predict(test.images / np.float32(16), verbose=0), axis=1)
    np.testing.assert_array_equal(last.preprocessing(test.images), test.images / np.float32(16))
    assert last.class_names == tuple("0123456789")
    assert result["test_accuracy"] == pytest.approx(np.mean(predictions == test.labels))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["images"] == {"train": 96, "validation": 0, "test": 360}
    assert (config["data"]["mean"], config["data"]["std"]) == ([0.0], [16.0])
    text = console.export_text()
    assert "96 training, 0 validation, 360 test images; unit pixels" in text
    assert re.search(r"validation accuracy +│ +none", text)
    assert re.search(r"epoch +3/3  loss [\d.]+  accuracy [\d.]+%  \d+ images/s", text)


def test_a_net_that_whitens_and_an_accuracy_of_mirror_images(quick, console, tmp_path):
    settings = quick(
        "nais_fast", mirrored_test=True, label_smoothing=0.1, schedule="triangle", nesterov=True
    )
    result = session.start(settings, tmp_path / "run", console)
    data = datasets.load("digits", limit_train=96)
    model = keras.models.load_model(tmp_path / "run" / "last.keras")
    assert model.loss.label_smoothing == 0.1
    train, test = (
        (part.images.astype("float32") - data.mean) / data.std for part in (data.train, data.test)
    )
    kernel = model.get_layer("whitening").kernel.numpy()
    ki.whiten(model, train)
    np.testing.assert_allclose(kernel, model.get_layer("whitening").kernel.numpy(), atol=1e-6)
    logits = sum(model.predict(images, verbose=0) for images in (test, test[:, :, ::-1]))
    expected = np.mean(logits.argmax(axis=1) == data.test.labels)
    assert result["test_accuracy_mirrored"] == pytest.approx(expected)
    assert re.search(f"with mirror images +│ +{expected:.2%}", console.export_text())
    assert result["test_accuracy"] == pytest.approx(accuracy(model, data.test, data))


class _CutOff(callbacks.RunRecorder):
    """A record that stops a run as Ctrl-C does, in the middle of the third epoch."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if len(self.rows) == 2 and batch == 1:
            raise KeyboardInterrupt


def arrays(path):
    """Return all weights and the optimizer's state of a checkpoint."""
    model = keras.models.load_model(path)
    return [np.asarray(v) for v in model.variables + model.optimizer.variables]


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("nais10", {}),
        ("resnet_sh_bn", {}),
        ("pcr_w8", {"blocks": 2, "coupling": 0.5, "limit_train": 64}),
    ],
)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    quick, console, tmp_path, monkeypatch, model, given
):
    # Which takes longer than the training, and is another test's.
    monkeypatch.setattr("training.run_result._measure_indices", lambda session: None)
    settings = quick(model, epochs=4, augment="standard", weight_decay=1e-4, **given)
    whole = session.start(settings, tmp_path / "whole", console)
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(settings, tmp_path / "cut", console, checkpoint_minutes=0)
    assert f"--resume {tmp_path / 'cut'}" in console.export_text()
    assert not (tmp_path / "cut" / "result.json").exists()
    runs = ["cut"]
    if model == "nais10":
        # One goes on within the epoch, the other from the last whole one.
        runs.append("other")
        shutil.copytree(tmp_path / "cut", tmp_path / "other")
        (tmp_path / "other" / "within_epoch.npz").unlink()

    for name in runs:
        found = session.resume(tmp_path / name, console)
        for a, b in zip(
            arrays(tmp_path / "whole" / "last.keras"),
            arrays(tmp_path / name / "last.keras"),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        assert not (tmp_path / name / "within_epoch.npz").exists()
        assert losses(tmp_path / name) == losses(tmp_path / "whole")
        for measure in ("test_accuracy", "train_accuracy", "mean_depth", "best_epoch", "epochs"):
            assert whole[measure] == found[measure]


def test_a_run_with_a_schedule_of_updates_goes_on_with_the_number_of_its_epoch(
    quick, console, tmp_path, monkeypatch
):
    settings = quick("nais_dense", epochs=4, unroll_schedule="0:1,2:2,3:4")
    whole = session.start(settings, tmp_path / "whole", console)
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(settings, tmp_path / "cut", console, checkpoint_minutes=0)
    assert max_unroll(tmp_path / "cut" / "last.keras") == 1
    shutil.copytree(tmp_path / "cut", tmp_path / "early")
    found = session.resume(tmp_path / "cut", console)
    for a, b in zip(
        arrays(tmp_path / "whole" / "last.keras"),
        arrays(tmp_path / "cut" / "last.keras"),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert whole["mean_depth"] == found["mean_depth"] == 4
    # The best epoch is one of the last number of updates, here the only one.
    assert whole["best_epoch"] == 4
    for file in ("last.keras", "best.keras"):
        assert max_unroll(tmp_path / "cut" / file) == 4
    assert "--unroll-schedule 0:1,2:2,3:4" in whole["command"]
    assert "updates of a block by epoch: 0:1,2:2,3:4" in console.export_text()

    # A run that ends early keeps the number of its last epoch, after a restart too.
    early = session.resume(tmp_path / "early", console, epochs=2)
    assert (early["epochs"], early["mean_depth"], early["processing_depth"]) == (2, 1, 1)


def max_unroll(path):
    """Return the number of updates of the block in a model file."""
    (block,) = ki.iterated_blocks(keras.models.load_model(path))
    return block.max_unroll


def losses(run):
    """Return what a run's history says of each epoch, but for the time that it took."""
    with (run / "history.csv").open() as stream:
        return [
            [row[name] for name in ("epoch", "loss", "accuracy", "val_loss", "learning_rate")]
            for row in csv.DictReader(stream)
        ]


def test_an_adaptive_run_logs_its_depth_and_goes_on_with_the_log(
    quick, console, tmp_path, monkeypatch
):
    settings = quick("nais_adaptive", epochs=3, threshold=0.03)
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(settings, tmp_path / "run", console)
    session.resume(tmp_path / "run", console)
    logs = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "depth")).Reload()
    events = logs.Tensors("depth/updates")
    assert [event.step for event in events] == [0, 1, 2]

    data = datasets.load("digits", limit_train=96)
    images = (data.validation.images.astype("float32") - data.mean) / data.std
    depth = ki.with_depth(keras.models.load_model(tmp_path / "run" / "last.keras"))(images)["depth"]
    assert len(images) <= 256
    assert float(make_ndarray(events[-1].tensor_proto)) == pytest.approx(
        np.mean(np.sum(depth, axis=1)), abs=0.05
    )


def test_a_run_of_fixed_depth_logs_none(quick, console, tmp_path):
    session.start(quick("nais_mnist", epochs=1), tmp_path / "run", console)
    assert not (tmp_path / "run" / "tensorboard" / "depth").exists()


def test_a_run_with_a_loss_scale_that_skips_steps_goes_on_exactly(
    quick, console, tmp_path, monkeypatch
):
    @contextlib.contextmanager
    def float16(mixed):
        keras.config.set_dtype_policy("mixed_float16")
        yield
        keras.config.set_dtype_policy("float32")

    class Overflow(session.RunRecorder):
        """A record that lets the loss scale overflow in the second epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                self.model.optimizer.dynamic_scale.assign(1e38)

    class OverflowAndCutOff(Overflow, _CutOff):
        pass

    monkeypatch.setattr(session, "_precision", float16)
    settings = quick("nais_mnist", epochs=4)
    monkeypatch.setattr(session, "RunRecorder", Overflow)
    session.start(settings, tmp_path / "whole", console)
    monkeypatch.setattr(session, "RunRecorder", OverflowAndCutOff)
    with pytest.raises(KeyboardInterrupt):
        session.start(settings, tmp_path / "cut", console)
    monkeypatch.setattr(session, "RunRecorder", Overflow)
    session.resume(tmp_path / "cut", console)
    whole, cut = (arrays(tmp_path / name / "last.keras") for name in ("whole", "cut"))
    steps = keras.models.load_model(tmp_path / "whole" / "last.keras").optimizer.iterations
    assert int(steps) < 4 * 3
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_is_stopped_before_its_first_step_can_go_on(
    quick, console, tmp_path, monkeypatch
):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session, "print_header", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.start(quick("nais_mnist"), tmp_path / "run", console)
    assert session.resume(tmp_path / "run", console)["epochs"] == 2


def test_a_run_does_not_go_on_with_other_data(quick, console, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(quick("nais_mnist", epochs=4), tmp_path / "run", console)
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"limit_train": 96', '"limit_train": 97'))
    with pytest.raises(UserError, match="is not the one that"):
        session.resume(tmp_path / "run", console)


def test_logits_that_are_not_finite_are_never_right():
    data = datasets.load("digits", limit_train=96)
    outputs = {
        "logits": np.full((len(data.test), 10), np.nan, "float32"),
        "depth": np.ones((len(data.test), 1), "int32"),
        "status": np.full((len(data.test), 1), 2),
    }
    result = evaluate(lambda images: outputs, data, data.test, len(data.test))
    assert (result.accuracy, result.share_not_finite) == (0, 1)


def test_a_truncated_checkpoint_is_refused_and_nothing_is_lost(
    quick, console, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(session, "RunRecorder", _CutOff)
        with pytest.raises(KeyboardInterrupt):
            session.start(quick(epochs=4), tmp_path / "run", console)
    last = tmp_path / "run" / "last.keras"
    last.write_bytes(last.read_bytes()[:2000])
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir() if f.is_file()}
    with pytest.raises(UserError, match=r"last\.keras is damaged"):
        session.resume(tmp_path / "run", console)
    after = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir() if f.is_file()}
    assert before == after


def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_good_state(quick, console, tmp_path):
    settings = quick("resnet", learning_rate=1e30, schedule="constant")
    with pytest.raises(TrainingDivergedError, match="smaller --learning-rate"):
        session.start(settings, tmp_path / "run", console)
    assert all(np.isfinite(value).all() for value in arrays(tmp_path / "run" / "last.keras"))


def test_a_seed_repeats_a_run_and_another_does_not(quick, console, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        session.start(quick("nais_mnist", seed=seed), tmp_path / name, console)
    a, b, c = (arrays(tmp_path / name / "last.keras") for name in "abc")
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a, c, strict=True))


def test_a_mixed_precision_run_learns_and_leaves_the_policy(quick, console, tmp_path):
    before = keras.config.dtype_policy()
    settings = quick("nais_mnist", mixed_precision=True, limit_train=640, epochs=4)
    result = session.start(settings, tmp_path / "run", console)
    assert result["train_accuracy"] > 0.5
    assert keras.config.dtype_policy() == before


def test_mirrored_trains_and_counts_every_test_image(quick, console, tmp_path):
    result = session.start(quick("nais_mnist", strategy="mirrored"), tmp_path / "run", console)
    assert "2 replicas" in console.export_text()
    data = datasets.load("digits", limit_train=96)
    last = keras.models.load_model(tmp_path / "run" / "last.keras")
    assert result["test_accuracy"] == pytest.approx(accuracy(last, data.test, data))


def test_a_second_mirrored_run_in_one_process(quick, console, tmp_path):
    for name in ("nais_mnist", "nais10"):
        session.start(quick(name, strategy="mirrored", epochs=1), tmp_path / name, console)


def test_mirrored_divides_any_batch(quick, console, tmp_path):
    """The last share of 31 images is smaller; with synchronized statistics nothing else differs."""
    rows = []
    for strategy in ("none", "mirrored"):
        settings = quick("nais_mnist", strategy=strategy, batch_size=31, clip_norm=1.0)
        session.start(settings, tmp_path / strategy, console)
        rows.append(RunFolder(tmp_path / strategy).read_history(settings.epochs))
    for one, two in zip(*rows, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)


def test_workers_that_nobody_names(quick, console, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match=r"needs workers: .* iterconv launch"):
        session.start(quick(strategy="multiworker"), tmp_path / "run", console)
    two = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(two))
    with pytest.raises(UserError, match="TF_CONFIG names 2 workers"):
        session.start(quick(strategy="none"), tmp_path / "run", console)
    assert not (tmp_path / "run").exists()
