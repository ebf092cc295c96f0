"""The run's folder: nothing in it is lost."""

import errno

import pytest

from iterconv.command_errors import UserError
from training.history import FIELDS
from training.run_folder import RunFolder


def row(epoch):
    """Return an epoch's numbers."""
    return {name: float(i) for i, name in enumerate(FIELDS)} | {"epoch": epoch}


def test_unnamed_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [RunFolder.create(None, "nais10-digits").path.name for _ in range(3)]
    assert names == ["nais10-digits-1", "nais10-digits-2", "nais10-digits-3"]


def test_a_folder_with_a_run_is_left_alone(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "x")
    folder.write_json(folder.config, {"kept": True})
    before = folder.config.read_bytes()
    with pytest.raises(UserError, match="already holds a run; continue it with --resume"):
        RunFolder.create(tmp_path / "run", "x")
    assert folder.config.read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        RunFolder.create(tmp_path, "x")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="cannot be used: it is not a folder"):
        RunFolder.create(tmp_path / "run", "x")


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path):
    folder = RunFolder(tmp_path)
    folder.result.write_text("old")

    def fill_disk():
        with folder.replacing(folder.result) as partial:
            partial.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*its previous content is kept"):
        fill_disk()
    assert folder.result.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_history_of_an_epoch_without_its_checkpoint_is_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history([row(1), row(2), row(3)])
    assert folder.read_history(epochs=2) == [row(1), row(2)]
    assert RunFolder(tmp_path / "none").read_history(0) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text(""),
        lambda file: file.write_text(file.read_text()[:-12]),
        lambda file: file.write_text(file.read_text().replace("val_loss", "other")),
        lambda file: file.write_text(file.read_text().replace("\n2,", "\n7,")),
    ],
)
def test_a_damaged_history_is_refused(tmp_path, damage):
    folder = RunFolder(tmp_path)
    folder.write_history([row(1), row(2)])
    damage(folder.history)
    with pytest.raises(UserError, match="must hold the 2 epochs"):
        folder.read_history(epochs=2)


@pytest.mark.parametrize(
    "make", [lambda path: path.touch(), lambda path: path.symlink_to("nowhere")]
)
def test_something_else_in_the_place_of_the_folder_of_runs_is_refused(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs")
    # Else a test that fails would try all numbers.
    monkeypatch.setattr("itertools.count", lambda first: range(first, 4))
    with pytest.raises(UserError, match="--output runs cannot be used"):
        RunFolder.create(None, "net-digits")


@pytest.mark.parametrize(
    ("present", "advice"),
    [
        ((), "; the folder holds nothing else: start a run with iterconv fit --output "),
        ((".lock",), "; the folder holds nothing else: start a run with iterconv fit --output "),
        (("last.keras",), "$"),
        (("holiday.jpg",), "$"),
    ],
)
def test_resume_needs_a_run(tmp_path, present, advice):
    for name in present:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"holds no run: config\.json is missing{advice}"):
        RunFolder.open(tmp_path)


def test_a_damaged_config_is_one_sentence(tmp_path):
    folder = RunFolder(tmp_path)
    folder.config.write_text('{"settings": {')
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        folder.read_config()
