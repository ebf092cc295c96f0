"""Digitclutter as a TensorFlow data set: records, loading, and drawing that stops."""

import errno
import itertools
import logging
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_iterconv import datasets
from keras_iterconv.datasets import (
    DatasetCorruptedError,
    DatasetError,
    digitclutter_builder,
)
from keras_iterconv.datasets.digitclutter import draw_picture, draw_pictures, lay_out
from keras_iterconv.datasets.digitclutter_builder import Digitclutter, make_config
from keras_iterconv.tasks import TASKS
from tests.support.comparisons import one_sentence


def build(folder, **arguments):
    builder = Digitclutter(
        config=make_config(**{"digits": 3, "sizes": (30, 5, 4), "seed": 1, **arguments}),
        data_dir=folder,
    )
    builder.download_and_prepare(download_dir=folder / "downloads")
    return builder


def test_the_records_hold_the_pictures_in_their_order(tmp_path):
    builder = build(tmp_path)
    for part, size in (("train", 30), ("validation", 5), ("test", 4)):
        records = list(tfds.as_numpy(builder.as_dataset(split=part)))
        assert len(records) == builder.info.splits[part].num_examples == size
        for index, record in enumerate(records):
            classes, places = lay_out(1, 3, part, index)
            assert record["digits"].tolist() == classes.tolist()
            assert np.flatnonzero(record["label"]).tolist() == sorted(classes)
            assert record["label"].sum() == 3
            assert np.array_equal(record["image"], draw_picture(classes, places))


def test_a_seed_repeats_every_byte(tmp_path):
    seeds = {"a": 1, "b": 1, "c": 2}
    folders = [build(tmp_path / name, seed=seed).data_path for name, seed in seeds.items()]
    a, b, c = (
        {path.name: path.read_bytes() for path in folder.glob("*tfrecord*")} for folder in folders
    )
    assert len(a) == 3
    assert a == b
    assert not any(a[name] == c[name] for name in a)


def test_every_data_set_has_its_own_name():
    assert [config.name for config in Digitclutter.BUILDER_CONFIGS] == ["n2", "n3", "n4", "n5"]
    assert make_config(4) is Digitclutter.BUILDER_CONFIGS[2]
    assert make_config(4).sizes == (100_000, 10_000, 10_000)
    others = [(2, (9, 9, 9), 0), (2, (99, 9, 9), 0), (2, (9, 9, 9), 1), (6, (9, 9, 9), 0), (4,)]
    assert len({make_config(*arguments).name for arguments in others}) == len(others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"digits": 0}, "`digits` must be from 1 to 10. Received: digits=0"),
        ({"digits": 11}, "`digits` must be from 1 to 10. Received: digits=11"),
        (
            {"sizes": (5, 5)},
            r"`sizes` must be three integers of at least 1. Received: sizes=\(5, 5\)",
        ),
        ({"sizes": (5, 0, 5)}, "`sizes` must be three integers of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_config(**{"digits": 3, **arguments})


def test_loading_is_quiet_but_for_the_bars(tiny_digitclutter, capfd, caplog, request):
    # absl's logger does not hand its records on to the root logger, where caplog listens.
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    request.addfinalizer(lambda: logger.removeHandler(caplog.handler))
    datasets.load("digitclutter3", limit_train=32)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().out == ""
    assert [path.name for path in tiny_digitclutter.iterdir()] == ["digitclutter"]


def test_loaded_parts_are_the_builders_own(tiny_digitclutter):
    data = datasets.load("digitclutter3")
    for part, size in (("train", 96), ("validation", 12), ("test", 20)):
        split = getattr(data, part)
        assert len(split) == size
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        pictures = draw_pictures(seed=0, digits=3, part=part, count=size, workers=0)
        for index, (picture, classes) in enumerate(pictures):
            assert np.array_equal(split.images[index], picture)
            assert np.flatnonzero(split.labels[index]).tolist() == sorted(classes)
    assert data.task is TASKS[datasets.CATALOGUE["digitclutter3"].task] is TASKS["label_sets"]
    assert data.input_shape == (32, 32, 1)
    assert (data.classes, data.scale) == (tuple("0123456789"), 255)
    assert data.mean == pytest.approx(data.train.images.mean(dtype=float), rel=1e-6)


def test_a_data_set_is_drawn_once(tiny_digitclutter, monkeypatch):
    first = datasets.load("digitclutter2", limit_train=32)
    monkeypatch.setattr(digitclutter_builder, "draw_pictures", None)
    again = datasets.load("digitclutter2", limit_train=32)
    assert np.array_equal(first.train.images, again.train.images)


def test_a_limit_draws_no_more_than_it_needs(tiny_digitclutter):
    limited = datasets.load("digitclutter3", limit_train=80)
    (folder,) = (tiny_digitclutter / "digitclutter").glob("n3-*")
    assert folder.name == "n3-80-10-20-seed0"
    assert [len(p) for p in (limited.train, limited.validation, limited.test)] == [80, 10, 20]
    whole = datasets.load("digitclutter3")
    for part, size in (("train", 80), ("validation", 10), ("test", 20)):
        first = getattr(whole, part).images[:size]
        assert np.array_equal(getattr(limited, part).images, first)


def test_a_limit_reads_the_whole_data_set_where_it_is_there(tiny_digitclutter, monkeypatch):
    whole = datasets.load("digitclutter3")
    monkeypatch.setattr(digitclutter_builder, "draw_pictures", None)
    limited = datasets.load("digitclutter3", limit_train=32)
    assert [len(p) for p in (limited.train, limited.validation, limited.test)] == [32, 4, 20]
    assert np.array_equal(limited.train.labels, whole.train.labels[:32])


@pytest.mark.parametrize("limit", [9, 100_001])
def test_a_limit_out_of_range_is_refused_before_anything_is_drawn(tiny_digitclutter, limit):
    with pytest.raises(ValueError, match=f"`limit_train` must be at .*limit_train={limit}"):
        datasets.load("digitclutter3", limit_train=limit)
    assert not tiny_digitclutter.exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DatasetError) as error:
        datasets.load("digitclutter3", limit_train=10)
    text = one_sentence(error)
    for part in ("'digitclutter3'", str(tmp_path / "file"), "TFDS_DATA_DIR"):
        assert part in text


def stopping(error):
    """Return a drawing that gets to its fifth picture."""

    def draw(*args):
        yield from itertools.islice(draw_pictures(*args), 5)
        raise error

    return draw


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DatasetError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_drawing_that_stops_leaves_nothing_and_can_start_again(
    tiny_digitclutter, monkeypatch, stop, shown
):
    with monkeypatch.context() as patched:
        patched.setattr(digitclutter_builder, "draw_pictures", stopping(stop))
        with pytest.raises(shown) as error:
            datasets.load("digitclutter3")
    if shown is DatasetError:
        assert "(No space left on device)" in one_sentence(error).replace("[Errno 28] ", "")
    assert [path.name for path in (tiny_digitclutter / "digitclutter").iterdir()] == [".config"]
    assert len(datasets.load("digitclutter3").train) == 96


def test_what_a_killed_drawing_left_is_no_hindrance(tiny_digitclutter):
    name = make_config(3, digitclutter_builder.SIZES).name
    left = tiny_digitclutter / "digitclutter" / name / f"incomplete.ABCDEF_{Digitclutter.VERSION}"
    left.mkdir(parents=True)
    (left / "digitclutter-train.tfrecord-00000-of-00001").write_bytes(b"half")
    assert len(datasets.load("digitclutter3").train) == 96


def test_images_of_an_older_version_are_not_read(tiny_digitclutter, monkeypatch):
    def draw_white(seed, digits, part, count):
        for _, classes in draw_pictures(seed, digits, part, count):
            yield np.full((32, 32, 1), 255, np.uint8), classes

    with monkeypatch.context() as patched:
        patched.setattr(Digitclutter, "VERSION", tfds.core.Version("1.0.0"))
        patched.setattr(digitclutter_builder, "draw_pictures", draw_white)
        old = datasets.load("digitclutter3")
    new = datasets.load("digitclutter3")
    assert (old.test.images == 255).all()
    assert (new.test.images < 255).any()
    assert str(Digitclutter.VERSION) in Digitclutter.RELEASE_NOTES


def test_a_data_set_that_another_process_finished_first_is_taken(tiny_digitclutter, monkeypatch):
    prepare = Digitclutter.download_and_prepare

    def beaten(self, **arguments):
        prepare(self, **arguments)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Digitclutter, "download_and_prepare", beaten)
    assert len(datasets.load("digitclutter3").train) == 96


@pytest.mark.parametrize("file", ["*train.tfrecord*", "dataset_info.json"])
def test_damage_is_told_in_one_sentence(tiny_digitclutter, file):
    datasets.load("digitclutter3", limit_train=32)
    (path,) = tiny_digitclutter.glob(f"digitclutter/n3-*/{Digitclutter.VERSION}/{file}")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DatasetCorruptedError) as error:
        datasets.load("digitclutter3", limit_train=32)
    text = one_sentence(error)
    assert str(path.parents[1]) in text
    assert "delete that folder" in text
