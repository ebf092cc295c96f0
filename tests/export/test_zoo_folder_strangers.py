"""A zoo's folder with files of others: left by a killed process, planted, or somebody's own."""

import json
import os
import threading

import pytest

from export.zoo_folder import unlisted_files
from keras_iterconv._support.locking import locked
from keras_iterconv.zoo.index import ZooError
from tests.support.small_zoo import ENTRY, contents, publish, read_whole


def test_what_a_killed_one_left_of_another_model_is_removed(tmp_path):
    publish(tmp_path, "other")
    for left in ("other/.partial-abcd_123/files", "other/7"):
        (tmp_path / left / "saved_model" / "variables").mkdir(parents=True)
        (tmp_path / left / "other.keras").write_text("half")
        (tmp_path / left / "saved_model" / "variables" / "variables.index").write_text("half")
    (tmp_path / "other" / ".partial-empty___").mkdir()
    publish(tmp_path, "net")
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["1"]
    assert read_whole(tmp_path, "other")


STRANGERS = [
    "other/.partial-mine/thesis.txt",
    "other/.partial-abcd1234/thesis.txt",
    "other/.partial-abcd1234/files/thesis.txt",
    "other/.partial-mine/files/other.keras",
    "other/7/thesis.txt",
    "other/7/README.md",
    "other/notes/other.keras",
    "other/²/other.keras",
    "net/2024/file",
    "net/.partial-file",
    "third/.partial-abcd1234/files/third.keras",
    "third/7/third.keras",
    ".partial-mine1234/index.json.old",
]


def test_what_is_somebody_else_s_stays_and_is_told(tmp_path):
    publish(tmp_path, "other")
    for left in STRANGERS:
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("mine")
    for name in ("net", "other"):
        publish(tmp_path, name, "new")
    assert {left for left in STRANGERS if not (tmp_path / left).is_file()} == set()
    assert unlisted_files(tmp_path) == sorted(STRANGERS)


@pytest.mark.parametrize("place", ["other", "other/.partial-abcd1234", "other/7"])
def test_what_a_link_leads_to_stays(tmp_path, place):
    zoo, outside = tmp_path / "zoo", tmp_path / "outside"
    publish(zoo, "other")
    for left in ("files/other.keras", ".partial-abcd1234/files/other.keras", "7/other.keras"):
        (outside / left).parent.mkdir(parents=True)
        (outside / left).write_text("mine")
    if place == "other":
        (zoo / "other").rename(zoo / "away")
    (zoo / place).symlink_to(outside)
    before = contents(outside)
    publish(zoo, "net")
    assert contents(outside) == before
    assert place in unlisted_files(zoo)


@pytest.mark.parametrize("place", ["index.json", ".partial-index.json", "net", ".lock"])
def test_a_planted_link_is_not_written_through(tmp_path, place):
    zoo, precious = tmp_path / "zoo", tmp_path / "precious"
    zoo.mkdir()
    if place == "net":
        precious.mkdir()
    else:
        precious.write_text("mine")
    (zoo / place).symlink_to(precious)
    if place == ".partial-index.json":
        publish(zoo)
    else:
        with pytest.raises((ZooError, OSError), match=place):
            publish(zoo)
    assert not list(precious.iterdir()) if place == "net" else precious.read_text() == "mine"


def test_a_file_that_is_no_lock_of_ours_stays(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    publish(tmp_path)
    assert (tmp_path / ".lock").read_text() == "mine"


def test_files_that_are_published_during_a_listing(tmp_path, monkeypatch):
    publish(tmp_path, content="old")
    real = os.walk

    def publish_in_between(top):
        found = list(real(top))
        publish(tmp_path, content="new")
        return [*found, *real(top)]

    monkeypatch.setattr("export.zoo_folder.os.walk", publish_in_between)
    assert unlisted_files(tmp_path) == []


def test_a_nan_is_not_published(tmp_path):
    publish(tmp_path, content="old")
    result = {**ENTRY["result"], "test_accuracy": float("nan")}
    with pytest.raises(ZooError, match="NaN is no JSON number"):
        publish(tmp_path, content="new", entry={**ENTRY, "result": result})
    assert read_whole(tmp_path)["license"] == "old"


def test_folders_whose_digits_are_no_numbers(tmp_path):
    for name in ("²", "٣", "1e3"):
        (tmp_path / "net" / name).mkdir(parents=True)
    publish(tmp_path)
    assert "net/1/net.keras" in read_whole(tmp_path)["files"]


def test_a_writer_waits_for_the_lock(tmp_path):
    publish(tmp_path)
    with locked(tmp_path / ".lock"):
        waiting = threading.Thread(
            target=publish, args=(tmp_path,), kwargs={"content": "new"}, daemon=True
        )
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert read_whole(tmp_path)["license"] == "old"
    waiting.join(60)
    assert read_whole(tmp_path)["license"] == "new"
    assert not (tmp_path / ".lock").exists()


def test_nothing_is_removed_by_an_index_that_is_no_zoo_s(tmp_path):
    publish(tmp_path, "other")
    index = json.loads((tmp_path / "index.json").read_text())
    for change in (
        {"version": 2},
        {"models": {"other": None}},
        {"models": {"other": {"files": {}}}},
    ):
        (tmp_path / "index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(ZooError, match="is not as expected"):
            publish(tmp_path, "net")
        assert (tmp_path / "other" / "1" / "other.keras").exists()
