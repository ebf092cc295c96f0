"""Run folders that somebody has edited or a disk has damaged: one line for each, nothing else."""

import dataclasses
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from rich.console import Console

from export import zoo_entry as entry
from iterconv.command_errors import UserError
from training import session
from training.run_folder import RunFolder
from training.settings import make_settings

JSON_FILES = ("config.json", "result.json")
FILES = (*JSON_FILES, "history.csv", "last.keras")
DEEP = 100_000 * "[" + 100_000 * "]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train a run of two epochs that was once cut off within the second."""
    run = tmp_path_factory.mktemp("runs") / "run"
    settings = make_settings(
        model="nais_dense", epochs=2, batch_size=32, limit_train=64, max_unroll=2
    )
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere)

        class Copy(session.RunRecorder):
            def on_train_batch_end(self, batch, logs=None):
                super().on_train_batch_end(batch, logs)
                if self.folder.within_epoch.exists() and len(self.rows) == 1:
                    shutil.copy(self.folder.within_epoch, run.parent / "within_epoch.npz")

        record, session.RunRecorder = session.RunRecorder, Copy
        try:
            session.start(settings, run, console, checkpoint_minutes=0)
        finally:
            session.RunRecorder = record
        # A state within a further epoch is read where there is to be one.
        yield run, session._Session(dataclasses.replace(settings, epochs=3), console)


@pytest.fixture
def read(finished, tmp_path):
    """Return a copy of the run and a function that reads all of its files, as commands do."""
    run, trained = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)

    def read():
        folder = RunFolder.open(copy)
        folder.read_config()
        folder.read_result()
        trained.load(folder)

    read()
    return copy, read


def edit(path, value):
    """Return a damage that sets one value in a JSON file; a missing one where it is `del`."""

    def damage(file):
        content = json.loads(file.read_text())
        *parents, key = path.split("/")
        inner = content
        for parent in parents:
            inner = inner[parent]
        if value == "del":
            del inner[key]
        else:
            inner[key] = value
        # NaN is what Python writes for it.
        file.write_text(json.dumps(content))

    return damage


def write(content):
    def damage(file):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def replace_by(make):
    def damage(file):
        file.unlink()
        make(file)

    return damage


def enlarge(file):
    os.truncate(file, 100 * 2**30)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


KINDS = {
    "folder": replace_by(lambda file: file.mkdir()),
    "fifo": replace_by(os.mkfifo),
    "dangling link": replace_by(lambda file: file.symlink_to("nowhere")),
    "link": replace_by(lambda file: file.symlink_to("curves.png")),
    "empty": write(""),
    "binary": write(bytes(range(256)) * 8),
    "cut": cut,
    "huge": enlarge,
}
TEXTS = {
    "a list": write("[]"),
    "a number": write("1"),
    "deep": write(DEEP),
    "deep inside": write(f'{{"settings": {DEEP}}}'),
    "long number": write(f'{{"epochs": {"9" * 5000}}}'),
    "latin": write('{"settings": "é"}'.encode("latin-1")),
}
NAN = float("nan")
EDITS = [
    ("config.json", path, value)
    for path, value in (
        ("settings", "del"), ("settings", []), ("settings/epochs", True), ("settings/epochs", 0),
        ("settings/epochs", "2"), ("settings/epochs", 2.5), ("settings/epochs", -1),
        ("settings/epochs", None), ("settings/epochs", "del"), ("settings/batch_size", 1e400),
        ("settings/learning_rate", NAN), ("settings/learning_rate", "fast"),
        ("settings/learning_rate", -1), ("settings/mixed_precision", "no"),
        ("settings/mixed_precision", 0), ("settings/schedule", "none"), ("settings/schedule", 1),
        ("settings/strategy", "all"), ("settings/augment", None), ("settings/seed", -1),
        ("settings/seed", 1.5), ("settings/unknown", 1), ("settings/model", 3),
        ("settings/weight_decay", NAN), ("settings/clip_norm", -1), ("settings/threshold", "x"),
        ("settings/validation_share", 2), ("settings/pixels", "raw"), ("data", "del"), ("data", 1),
        ("data/mean", "0"), ("data/mean", [NAN]), ("data/std", [-1]), ("data/classes", []),
        ("data/input_shape", [8, 8]), ("data/input_shape", [8, 8, 0]), ("data/scale", 0),
        ("data/images", {}), ("versions", []), ("versions/keras", 3), ("extensions", 1),
        ("extensions", [{"epochs": 0, "done": 1}]),
    )
] + [
    ("result.json", path, value)
    for path, value in (
        ("epochs", True), ("epochs", 0), ("epochs", "del"), ("test_accuracy", NAN),
        ("test_accuracy", 1.1), ("test_accuracy", "high"), ("seed", 0.5), ("seconds", -1),
        ("seconds", float("inf")), ("machine", 7), ("mean_depth", None), ("parameters", -1),
        ("validation_accuracy", "none"),
    )
]  # fmt: skip


def check_one_line(read):
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_of_a_run(read, name, kind):
    run, read_all = read
    KINDS[kind](run / name)
    check_one_line(read_all)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", JSON_FILES)
def test_what_is_no_content_of_a_run(read, name, kind):
    run, read_all = read
    TEXTS[kind](run / name)
    check_one_line(read_all)


@pytest.mark.parametrize(("name", "path", "value"), EDITS)
def test_values_that_no_run_writes(read, name, path, value):
    run, read_all = read
    edit(path, value)(run / name)
    check_one_line(read_all)


@pytest.mark.parametrize(
    "text",
    ["epoch\n1\n2\n", "nan", '"\n', "\0", "epoch,loss\n1,1\n2,1\n"],
)
def test_a_history_that_no_run_writes(read, text):
    run, read_all = read
    (run / "history.csv").write_text(text)
    check_one_line(read_all)


def test_a_history_with_a_nan(read):
    run, read_all = read
    header, first, second = (run / "history.csv").read_text().splitlines()
    fields = second.split(",")
    (run / "history.csv").write_text(
        "\n".join([header, first, ",".join([fields[0], "nan", *fields[2:]])])
    )
    check_one_line(read_all)


@pytest.mark.parametrize(
    "header",
    [b'{"epochs": -1}', b'{"epochs": true}', b'{"epochs": 1.0}', b"{}", b"[]", b"\xff", b"{",
     b'{"epochs": 7}'],
)  # fmt: skip
def test_a_checkpoint_that_no_run_writes(read, header):
    run, read_all = read
    other = run / "other.keras"
    with zipfile.ZipFile(run / "last.keras") as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            content = header if info.filename == "training.json" else old.read(info)
            new.writestr(info.filename, content)
    os.replace(other, run / "last.keras")
    check_one_line(read_all)


@pytest.mark.parametrize("damage", [cut, write(""), write("PK"), "nan", "shape"])
def test_a_state_within_an_epoch_that_no_run_writes(read, finished, damage):
    run, read_all = read
    file = run / "within_epoch.npz"
    shutil.copy(finished[0].parent / file.name, file)
    # It follows the first epoch; the checkpoint has seen two.
    read_all()
    content = json.dumps({"epochs": 2, "steps": 1, "seconds": 1.0})
    with np.load(file) as old:
        arrays = {name: old[name] for name in old.files if name.isdecimal()}
    if damage == "nan":
        arrays["0"] = np.full_like(arrays["0"], np.nan)
    elif damage == "shape":
        arrays["0"] = np.zeros(3, np.float32)
    np.savez(file, **arrays)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("training.json", content)
    if callable(damage):
        damage(file)
    with pytest.raises(UserError, match=r"within_epoch.npz is damaged .*; delete it to continue"):
        read_all()


@pytest.mark.parametrize("name", ["tensorboard", "tensorboard/train"])
def test_a_file_in_the_place_of_the_logs(read, name):
    run, read_all = read
    shutil.rmtree(run / name)
    (run / name).touch()
    with pytest.raises(UserError, match="is not a folder of logs"):
        read_all()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_run_is_not_published(read, name):
    run, _ = read
    cut(run / name)
    if name == "history.csv":
        # A publication does not read it.
        assert entry.read_run(run)[0].settings["model"] == "nais_dense"
    else:
        with pytest.raises(UserError):
            entry.read_run(run)
