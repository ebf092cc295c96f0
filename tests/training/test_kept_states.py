"""Which states a run keeps: none that is not finite, none that another process changes."""

import io
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from iterconv.command_errors import TrainingDivergedError, UserError
from keras_iterconv import datasets
from keras_iterconv._support.locking import locked
from keras_iterconv.datasets import batch_numbers
from training import progress_lines, session
from training.run_folder import RunFolder
from training.settings import make_settings


@pytest.fixture
def console():
    """Return a console that keeps what is written to it."""
    return Console(record=True, width=400, file=io.StringIO())


def quick(**given):
    """Return the settings of a run of one step an epoch."""
    return make_settings(
        **{"model": "nais_dense", "epochs": 3, "batch_size": 50, "limit_train": 50, **given}
    )


def all_finite(file):
    model = keras.models.load_model(file)
    return all(np.isfinite(v.numpy()).all() for v in model.variables + model.optimizer.variables)


def test_a_step_that_diverges_at_the_end_of_an_epoch_replaces_nothing(console, tmp_path):
    """The loss is that of the weights before the step, and still finite."""
    run = tmp_path / "run"
    with pytest.raises(TrainingDivergedError, match="is not finite") as caught:
        session.start(quick(learning_rate=1e38, schedule="constant"), run, console)
    assert str(run / "last.keras") in str(caught.value)
    assert all_finite(run / "last.keras")
    assert not (run / "result.json").exists()
    assert not (run / "best.keras").exists()


def test_a_validation_loss_that_is_not_finite_replaces_nothing(console, tmp_path, monkeypatch):
    evaluate = session.evaluate
    monkeypatch.setattr(
        session, "evaluate", lambda *args: evaluate(*args)._replace(loss=float("nan"))
    )
    with pytest.raises(TrainingDivergedError, match="on the validation images"):
        session.start(quick(), tmp_path / "run", console)
    model = keras.models.load_model(tmp_path / "run" / "last.keras")
    assert int(model.optimizer.iterations) == 0


def test_an_image_that_is_not_finite_is_named(console, tmp_path, monkeypatch):
    """With its number in the data set and in its batch, its block and the update."""
    split = datasets.load("digits", limit_train=50).train
    order = batch_numbers(split, batch_size=50, seed=0, epoch=0, step=0).tolist()
    place, make_batches = 17, session.training_batches

    def spoil(images, labels):
        bad = tf.one_hot(place, 50, float("inf"), 0.0)
        return images + tf.reshape(bad, [50, 1, 1, 1]), labels

    monkeypatch.setattr(
        session, "training_batches", lambda *args, **given: make_batches(*args, **given).map(spoil)
    )
    with pytest.raises(TrainingDivergedError) as caught:
        session.start(quick(), tmp_path / "run", console)
    message = str(caught.value)
    assert f"image {order[place]} of the training part (number {place} of its batch)" in message
    assert "is not finite at the input of 'block', one of 1 such images" in message
    assert "(epoch 1, step 1 of 1)" in message
    assert "\n" not in message


def test_a_finished_run_is_trained_further(console, tmp_path):
    run = tmp_path / "run"
    first = session.start(quick(epochs=1), run, console)
    with pytest.raises(UserError, match=r"is finished; .* Give more --epochs than 1"):
        session.resume(run, console)
    with pytest.raises(UserError, match="--epochs must be from 1"):
        session.resume(run, console, epochs=0)
    result = session.resume(run, console, epochs=3)
    assert (first["epochs"], result["epochs"]) == (1, 3)
    text = console.export_text()
    assert "1 of 3 epochs are finished, 1 were planned; the cosine schedule" in text
    assert "stretched over all of them" in text
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["epochs"] == 3
    assert config["extensions"] == [{"epochs": 1, "done": 1}]
    assert "--epochs 1" in result["command"]
    assert result["command"].endswith("; after 1 epochs --resume RUN --epochs 3")
    # The rate of the second epoch is that of a schedule of three.
    rows = RunFolder(run).read_history(3)
    assert rows[1]["learning_rate"] == pytest.approx(0.02 * (1 + np.cos(np.pi * 2 / 3)) / 2)


def test_the_old_result_stays_until_the_new_one_is_there(console, tmp_path, monkeypatch):
    run = tmp_path / "run"
    session.start(quick(epochs=1), run, console)
    old = (run / "result.json").read_bytes()

    def interrupt(self, epoch, logs=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(progress_lines.ProgressLines, "on_epoch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.resume(run, console, epochs=2)
    assert (run / "result.json").read_bytes() == old
    assert session.resume(run, console)["epochs"] == 2


def test_a_run_that_cannot_have_all_of_its_epochs_ends_with_those_that_it_has(
    console, tmp_path, monkeypatch
):
    """Else a finished run that was given more, and diverged, could never be published again."""
    run = tmp_path / "run"
    session.start(quick(epochs=1), run, console)
    record = session.RunRecorder

    class Diverges(record):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise TrainingDivergedError
            super().on_epoch_begin(epoch, logs)

    monkeypatch.setattr(session, "RunRecorder", Diverges)
    with pytest.raises(TrainingDivergedError):
        session.resume(run, console, epochs=5)
    RunFolder(run).result.unlink()
    with pytest.raises(
        UserError, match=r"--epochs must be at least 2, the finished epochs in .*: 1"
    ):
        session.resume(run, console, epochs=1)
    last = (run / "last.keras").read_bytes()
    assert session.resume(run, console, epochs=2)["epochs"] == 2
    assert (run / "last.keras").read_bytes() == last
    assert RunFolder(run).read_config()["settings"].epochs == 2
    assert "2 of 2 epochs are finished, 5 were planned\n" in console.export_text()


def test_a_run_that_ends_early_drops_what_was_done_of_a_further_epoch(
    console, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    session.start(quick(epochs=1, batch_size=10), run, console)
    recorder = session.RunRecorder

    class Diverges(recorder):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if len(self.rows) == 2:
                raise TrainingDivergedError

    monkeypatch.setattr(session, "RunRecorder", Diverges)
    with pytest.raises(TrainingDivergedError):
        session.resume(run, console, epochs=5, checkpoint_minutes=0)
    assert (run / "within_epoch.npz").exists()
    last = (run / "last.keras").read_bytes()
    assert session.resume(run, console, epochs=2)["epochs"] == 2
    assert (run / "last.keras").read_bytes() == last
    assert len((run / "history.csv").read_text().splitlines()) == 3


def test_the_command_that_goes_on_can_be_pasted(console, tmp_path, monkeypatch):
    def interrupt(self, epoch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress_lines.ProgressLines, "on_epoch_begin", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.start(quick(), tmp_path / "my run", console)
    assert f"continue with: iterconv fit --resume '{tmp_path}/my run'\n" in console.export_text()


def test_two_processes_do_not_train_one_run(console, tmp_path):
    run = tmp_path / "run"
    session.start(quick(epochs=1), run, console)
    with (
        locked(run / ".lock", wait=False),
        pytest.raises(UserError, match="is being trained by another process"),
    ):
        session.resume(run, console, epochs=2)


def test_a_run_that_was_killed_between_its_first_files_goes_on(console, tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def kill(*args, **kwargs):
        raise KilledError

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(session, "save_checkpoint", kill)
        with pytest.raises(KilledError):
            session.start(quick(epochs=1), run, console)
    whole = session.start(quick(epochs=1), tmp_path / "whole", console)
    found = session.resume(run, console)
    assert found["test_accuracy"] == whole["test_accuracy"]


def test_a_folder_that_a_killed_start_left_can_be_used_again(console, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    # Killed before there was a file, and while it was written.
    (run / ".partial-abcd_123").mkdir()
    (run / ".partial-abcd1234").mkdir()
    (run / ".partial-abcd1234" / "config.json").write_text("{")
    assert session.start(quick(epochs=1), run, console)["epochs"] == 1
    assert not list(run.glob(".partial-*"))


def test_planted_links_lead_nowhere(console, tmp_path):
    run, precious = tmp_path / "run", tmp_path / "precious"
    precious.write_text("mine")
    session.start(quick(epochs=1), run, console)
    names = [file.name for file in run.iterdir() if file.is_file()]
    for name in names:
        (run / f".partial-{name}").symlink_to(precious)
    session.resume(run, console, epochs=2)
    assert precious.read_text() == "mine"
    for name in set(names) - {".lock"}:
        os.replace(run / name, run / f"kept-{name}")
        (run / name).symlink_to(precious)
        with pytest.raises(UserError, match="is not a regular file"):
            session.resume(run, console, epochs=3)
        os.replace(run / f"kept-{name}", run / name)
    assert precious.read_text() == "mine"
