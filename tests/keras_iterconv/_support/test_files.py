"""Files that are written whole or not at all, and read with suspicion."""

import json
import os
import socket
from pathlib import Path

import pytest

from keras_iterconv._support.files import (
    FileError,
    parse_json,
    read_json,
    read_text,
    replacing,
    replacing_folder,
    sweep,
    write_json,
)

ANY = {}
SETTINGS = {
    "type": "object",
    "properties": {"epochs": {"type": "integer", "minimum": 1}},
    "required": ["epochs"],
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "result.json"
    file.write_text("old")
    with replacing(file) as partial:
        assert partial.name == file.name
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("failure", [OSError("full"), KeyboardInterrupt(), ValueError()])
def test_a_failure_leaves_the_old_file(tmp_path, failure):
    file = tmp_path / "result.json"
    file.write_text("old")

    def fail_half_way():
        with replacing(file) as partial:
            partial.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail_half_way()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_a_planted_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("mine")
    folder.mkdir()
    for name in ("result.json", ".partial-result.json"):
        (folder / name).symlink_to(precious)
    write_json(folder / "result.json", {"epochs": 1})
    assert precious.read_text() == "mine"
    assert not (folder / "result.json").is_symlink()
    assert json.loads((folder / "result.json").read_text()) == {"epochs": 1}


def test_what_a_kill_leaves_is_swept_and_nothing_else(tmp_path):
    # A killed process never leaves the context.
    killed = replacing(tmp_path / "last.keras")
    killed.__enter__().write_text("half")
    assert len(names(tmp_path)) == 1
    # Killed before there was a file.
    (tmp_path / ".partial-abcd_123").mkdir()
    (mine := tmp_path / ".partial-mine1234").mkdir()
    (mine / "thesis.txt").write_text("a year's work")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "last.keras").write_text("theirs")
    (tmp_path / ".partial-link1234").symlink_to(elsewhere)
    # No name that `replacing` gives.
    (tmp_path / ".partial-empty").mkdir()
    (tmp_path / ".partial-named").mkdir()
    (tmp_path / ".partial-named" / "last.keras").write_text("theirs")
    sweep(tmp_path, ["last.keras"])
    left = ["empty", "link1234", "mine1234", "named"]
    assert names(tmp_path) == [*(f".partial-{name}" for name in left), "elsewhere"]
    assert (mine / "thesis.txt").exists()
    assert (elsewhere / "last.keras").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_not_written_as_json(tmp_path, value):
    file = tmp_path / "index.json"
    file.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"accuracy": value})
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"epochs": NaN}', "NaN is no JSON number"),
        ('{"epochs": -Infinity}', "-Infinity is no JSON number"),
        ('{"epochs": ' + 5000 * "1" + "}", "is larger than any float"),
        ('{"epochs": 1e400}', "1e400 is larger than any float"),
        ('{"epochs": 3.0}', "epochs: 3.0 is not of type 'integer'"),
        (100_000 * "[", "nested too deeply"),
        ("[1]", "the whole: .* is not of type 'object'"),
        ("{}", "'epochs' is a required property"),
        ('{"epochs": true}', "epochs: True is not of type 'integer'"),
        ('{"epochs": "10"}', "epochs: '10' is not of type 'integer'"),
        ('{"epochs": 0}', "epochs: 0 is less than the minimum of 1"),
    ],
)
def test_json_that_is_not_as_expected_is_refused_in_one_line(text, said):
    with pytest.raises(FileError, match=f"config.json .*{said}") as caught:
        parse_json(text, SETTINGS, "config.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_json_as_expected_is_returned(tmp_path):
    write_json(tmp_path / "a.json", {"epochs": 3})
    assert read_json(tmp_path / "a.json", SETTINGS) == {"epochs": 3}


def make_folder(path):
    path.mkdir()


def make_link(path):
    (path.parent / "target").write_text("{}")
    path.symlink_to(path.parent / "target")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


def make_large(path):
    path.touch()
    os.truncate(path, 100 * 2**30)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is missing"),
        (make_folder, "is not a regular file"),
        (make_link, "is a link"),
        (os.mkfifo, "is not a regular file"),
        (make_socket, "cannot be opened"),
        (make_large, "has [0-9,]+ bytes; at most"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not text in UTF-8"),
    ],
)
def test_what_is_no_regular_file_is_refused(tmp_path, monkeypatch, make, said):
    # A socket's path must be short.
    monkeypatch.chdir(tmp_path)
    file = Path("config.json")
    make(file)
    with pytest.raises(FileError, match=f"^config.json {said}"):
        read_text(file)


def test_a_path_that_no_system_has_is_refused():
    with pytest.raises(FileError, match="cannot be opened"):
        read_text(Path("a\0b"))
    with pytest.raises(FileError, match="cannot be opened"):
        read_text(Path("x" * 300))


def test_a_folder_that_vanishes_while_it_is_looked_at_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / ".partial-gone1234").mkdir()

    def vanish(self):
        raise FileNotFoundError(self)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", vanish)
        sweep(tmp_path, ["last.keras"])
    assert names(tmp_path) == [".partial-gone1234"]


@pytest.mark.parametrize("name", ["net", "old", "new"])
def test_a_folder_is_replaced_as_a_whole(tmp_path, name):
    folder = tmp_path / name
    for content in ("first", "second"):
        with replacing_folder(folder) as staged:
            staged.mkdir()
            (staged / content).write_text(content)
        assert [path.name for path in folder.iterdir()] == [content]
    with pytest.raises(NotADirectoryError), replacing_folder(folder) as staged:
        staged.write_text("no folder") and (staged / "file").write_text("")
    # Nothing was written, so that the last step fails.
    with pytest.raises(FileNotFoundError), replacing_folder(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
