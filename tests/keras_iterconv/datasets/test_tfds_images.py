"""Image classification sets of TFDS by name, written by TFDS's own writer."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from keras_iterconv import datasets
from keras_iterconv.datasets import (
    DatasetCorruptedError,
    DatasetError,
    DatasetNotFoundError,
    StoredImages,
    assembly,
    tfds_reader,
)
from tests.support.comparisons import one_sentence
from tests.support.tfds_sets import change_records, draw_flower, write_set

PARTS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: False)
    return tmp_path / "tfds"


def rows(images):
    flat = np.asarray(images).reshape(len(images), -1)
    return flat[np.lexsort(flat.T)]


@pytest.mark.parametrize("shards", [1, 3])
def test_a_set_like_fashion_mnist(folder, shards):
    """The name is one that TFDS knows, with another version and other classes than the files."""
    splits = {"train": 40, "test": 12}
    written = write_set(folder, "fashion_mnist", splits, (28, 28, 1), shards=shards)
    data = datasets.load("fashion_mnist")
    assert (data.name, data.classes, data.scale) == ("fashion_mnist", ("left", "right"), 255)
    assert [len(getattr(data, part)) for part in PARTS] == [36, 4, 12]
    images, labels = map(np.array, written["test"])
    assert np.array_equal(data.test.images, images)
    assert np.array_equal(data.test.labels, labels)
    both = np.concatenate([data.train.images, data.validation.images])
    assert np.array_equal(rows(both), rows(written["train"][0]))
    for part in (data.train, data.validation):
        assert np.bincount(part.labels).tolist() == [len(part) / 2] * 2
        # The label is that of the image.
        for image, label in zip(part.images, part.labels, strict=True):
            (number,) = (n for n, other in enumerate(written["train"][0]) if (image == other).all())
            assert label == number % 2
    assert data.mean == pytest.approx(data.train.images.astype(float).mean(), rel=1e-6)


def test_a_set_like_oxford_flowers102(folder):
    """Sizes differ, and the set has a validation part of its own."""
    splits = {"train": 8, "test": 6, "validation": 4}
    written = write_set(folder, "oxford_flowers102", splits, (None, None, 3), draw=draw_flower)
    data = datasets.load("oxford_flowers102", image_size=(16, 24))
    assert data.input_shape == (16, 24, 3)
    for part, count in splits.items():
        assert len(getattr(data, part)) == count
        assert getattr(data, part).labels.tolist() == written[part][1]
        for image, drawn in zip(getattr(data, part).images, written[part][0], strict=True):
            assert image.mean() == pytest.approx(drawn.mean(), abs=3)
    assert datasets.load("oxford_flowers102").input_shape == (64, 64, 3)
    for share in ("validation_share", "test_share"):
        with pytest.raises(ValueError, match=f"`{share}` must be .* has its own .* part"):
            datasets.load("oxford_flowers102", **{share: 0.3})


def test_images_on_disk_are_those_in_memory(folder, monkeypatch):
    write_set(folder, "some", {"train": 30}, (None, None, 3), draw=draw_flower, shards=3)
    data = datasets.load("some")
    monkeypatch.setattr(assembly, "memory_limit", lambda: 0)
    stored = datasets.load("some")
    assert isinstance(stored.train.images, StoredImages)
    for part in PARTS:
        assert np.array_equal(getattr(stored, part).images[:], getattr(data, part).images)
        assert np.array_equal(getattr(stored, part).labels, getattr(data, part).labels)
    assert stored.mean.tobytes() == data.mean.tobytes()


@pytest.mark.parametrize(
    ("splits", "unlabelled", "counts", "test"),
    [
        ({"train": 20}, (), [14, 2, 4], None),
        ({"whole": 20}, (), [14, 2, 4], None),
        ({"train": 20, "validation": 6}, (), [18, 2, 6], "validation"),
        ({"train": 20, "validation": 6, "test": 8}, ("test",), [18, 2, 6], "validation"),
        ({"train": 20, "test": 8, "extra": 4}, (), [18, 2, 8], "test"),
    ],
)
def test_the_parts_of_other_splits(folder, splits, unlabelled, counts, test):
    written = write_set(folder, "some", splits, (8, 8, 1), unlabelled=unlabelled)
    data = datasets.load("some")
    assert [len(getattr(data, part)) for part in PARTS] == counts
    if test is not None:
        assert np.array_equal(data.test.images, written[test][0])
    limited = datasets.load("some", limit_train=6)
    assert len(limited.train) == 6
    assert np.array_equal(limited.test.images, data.test.images)


def test_transparency_is_flattened(folder):
    def draw(generator, label):
        image = np.full((8, 8, 4), 200, np.uint8)
        image[:, 4:, 3] = 0
        return image

    write_set(folder, "some", {"train": 8, "test": 4}, (8, 8, 4), draw=draw)
    test = datasets.load("some").test.images
    # Black is farther from what is visible.
    assert test.shape == (4, 8, 8, 3)
    assert set(test[:, :, :4].ravel()) == {
        Image.alpha_composite(
            Image.new("RGBA", (1, 1), "black"), Image.new("RGBA", (1, 1), (200, 200, 200, 200))
        ).getpixel((0, 0))[0]
    }
    assert not test[:, :, 4:].any()


def test_the_hash_is_of_the_records_in_their_order(folder, tmp_path, monkeypatch):
    splits = {"train": 12, "test": 4}
    write_set(folder, "some", splits, (8, 8, 1))
    first = datasets.load("some").sha256
    assert datasets.load("some", limit_train=4, image_size=16).sha256 == first
    # The same records elsewhere, in other files.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "other"))
    write_set(tmp_path / "other", "some", splits, (8, 8, 1), shards=2)
    assert datasets.load("some").sha256 == first
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    change_records(folder, "train", reversed)
    turned = datasets.load("some").sha256
    change_records(folder, "test", lambda records: [records[0], *records[:-1]])
    assert len({first, turned, datasets.load("some").sha256}) == 3


def record(folder):
    (path,) = folder.rglob("*train.tfrecord*")
    return path


def change_a_byte(folder):
    content = bytearray(record(folder).read_bytes())
    content[len(content) // 2] ^= 255
    record(folder).write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        change_a_byte,
        lambda folder: os.truncate(record(folder), 1000),
        lambda folder: os.truncate(record(folder), 0),
        lambda folder: record(folder).unlink(),
        lambda folder: next(folder.rglob("dataset_info.json")).write_text("{"),
    ],
    ids=["byte", "cut", "empty", "gone", "description"],
)
def test_damage_is_told_in_one_sentence(folder, damage):
    write_set(folder, "some", {"train": 8, "test": 4}, (8, 8, 1))
    damage(folder)
    with pytest.raises(DatasetCorruptedError, match=r"Data set 'some' in .* is damaged") as error:
        datasets.load("some")
    assert "delete that folder" in one_sentence(error)


def test_what_is_no_image_classification_set(folder):
    number = tfds.features.Scalar(np.int64)
    write_set(folder, "numbered", {"train": 4}, (8, 8, 1), label=number)
    with pytest.raises(ValueError, match=r"`dataset` must be an image classification set.*label"):
        datasets.load("numbered")
    write_set(folder, "parts", {"first": 4, "second": 4}, (8, 8, 1))
    with pytest.raises(ValueError, match=r"`dataset` must have a split train.*first, second"):
        datasets.load("parts")
    write_set(folder, "unlabelled", {"train": 4}, (8, 8, 1), unlabelled=("train",))
    with pytest.raises(ValueError, match=r"labelled training images"):
        datasets.load("unlabelled")
    # Known to TFDS; refused before a download.
    with pytest.raises(ValueError, match=r"image classification set.*sentence") as error:
        datasets.load("glue")
    assert "\n" not in str(error.value)


def test_another_file_format_is_told(folder):
    write_set(folder, "some", {"train": 4}, (8, 8, 1))
    info = next(folder.rglob("dataset_info.json"))
    info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
    with pytest.raises(DatasetError, match=r"files of the format array_record"):
        datasets.load("some")


def test_a_set_that_is_missing_is_told(folder):
    with pytest.raises(DatasetNotFoundError, match=r"'oxford_flowers102' is not in") as error:
        datasets.load("oxford_flowers102")
    assert "TFDS_DATA_DIR" in one_sentence(error)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "near"),
    [("fashion_mnits", "fashion_mnist"), ("../x", None), ("huggingface:mnist", None), ("", None)],
)
def test_an_unknown_name(folder, name, near):
    with pytest.raises(ValueError, match=r"`dataset` must be one of digits, mnist") as error:
        datasets.load(name)
    assert f"dataset={name!r}" in str(error.value)
    assert (near is None) or f"Did you mean {near!r}?" in str(error.value)


def test_what_the_catalogue_s_sets_do_not_take():
    with pytest.raises(ValueError, match=r"`image_size` must be left out: .* digits have 8x8"):
        datasets.load("digits", image_size=16)
    with pytest.raises(ValueError, match=r"`test_share` must be 0.2.*digits has a fixed test part"):
        datasets.load("digits", test_share=0.5)
