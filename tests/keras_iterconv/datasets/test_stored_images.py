"""Images on disk: the batches are those of images in memory, wherever a run begins."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_iterconv import datasets
from keras_iterconv.datasets import (
    StoredImages,
    UnreadablePictureError,
    assembly,
    load_folder,
    read_picture,
)
from tests.support.picture_folders import write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), 14, suffix=".jpg")


@pytest.fixture(scope="module")
def in_memory(folder):
    return load_folder(folder, image_size=16)


@pytest.fixture(scope="module")
def on_disk(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "memory_limit", lambda: 8 * 28 * 16 * 16 * 3 - 1)
        return load_folder(folder, image_size=16)


def test_the_memory_decides(in_memory, on_disk, folder, monkeypatch):
    assert isinstance(in_memory.train.images, np.ndarray)
    assert isinstance(on_disk.train.images, StoredImages)
    monkeypatch.setattr(assembly, "memory_limit", lambda: 8 * 28 * 16 * 16 * 3)
    assert isinstance(load_folder(folder, image_size=16).test.images, np.ndarray)


def test_the_interface_of_an_array(in_memory, on_disk):
    array, stored = in_memory.train.images, on_disk.train.images
    assert (stored.shape, stored.ndim, stored.dtype) == (array.shape, array.ndim, array.dtype)
    assert (len(stored), stored.nbytes) == (len(array), array.nbytes)
    for key in (3, -1, slice(None), slice(2, 5), slice(None, None, -1), np.array([5, 2, 5])):
        assert np.array_equal(stored[key], array[key])
    taken = on_disk.train.take(np.array([4, 1]))
    assert np.array_equal(taken.images[:], in_memory.train.take(np.array([4, 1])).images)


def test_statistics_equal_those_in_memory_bit_for_bit(in_memory, on_disk):
    for name in ("mean", "std"):
        assert getattr(on_disk, name).tobytes() == getattr(in_memory, name).tobytes()
    assert on_disk.sha256 == in_memory.sha256


@pytest.mark.parametrize("augment", ["none", "standard", "alternating"])
def test_training_batches_equal_those_in_memory_bit_for_bit(in_memory, on_disk, augment):
    both = (data.training_batches(5, seed=3, augment=augment) for data in (in_memory, on_disk))
    for (expected, labels), (images, found) in itertools.islice(zip(*both, strict=True), 12):
        assert np.array_equal(images, expected)
        assert np.array_equal(found, labels)
        assert images.shape == (5, 16, 16, 3)


def test_a_run_can_begin_at_any_step(on_disk):
    """The fifth step of an epoch of four is the first of the next."""

    def batches(**begin):
        return datasets.training_batches(
            on_disk.train,
            mean=on_disk.mean,
            std=on_disk.std,
            batch_size=5,
            seed=1,
            augment="standard",
            **begin,
        )

    steps = on_disk.steps_per_epoch(5)
    whole = [images.numpy() for images, _ in batches().take(3 * steps)]
    begun = batches(initial_epoch=1, initial_step=2).take(4)
    for step, (images, _) in enumerate(begun, start=steps + 2):
        assert np.array_equal(images, whole[step])


def test_evaluation_batches_are_in_order(in_memory, on_disk):
    pairs = zip(
        on_disk.evaluation_batches("test", 4), in_memory.evaluation_batches("test", 4), strict=True
    )
    for (images, labels), (expected, same) in pairs:
        assert np.array_equal(images, expected)
        assert np.array_equal(labels, same)


def test_batches_of_replicas(on_disk, in_memory):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    expected, _ = next(iter(in_memory.training_batches(6)))
    split, _ = next(iter(strategy.experimental_distribute_dataset(on_disk.training_batches(6))))
    halves = strategy.experimental_local_results(split)
    assert np.array_equal(np.concatenate(halves), expected)


def test_a_picture_that_goes_is_remembered(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "a", 4)
    monkeypatch.setattr(assembly, "memory_limit", lambda: 0)
    data = load_folder(folder)
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(UnreadablePictureError, match="cannot be opened: No such file"):
        data.test.images[:1]
    assert data.train.images.failures == []
    with pytest.raises(tf.errors.OpError):
        next(iter(data.evaluation_batches("test", 2)))
    # Of whichever part it was.
    assert "cannot be opened" in str(data.train.images.failures[0])


@pytest.fixture
def warned_of(tmp_path, monkeypatch):
    """A folder of pictures between Pillow's limit and twice that, and its data without a limit."""
    folder = write_pictures(tmp_path / "a", 12)
    expected = load_folder(folder, image_size=16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    return folder, expected


# For the whole test: a filter counts for all threads, those that read batches too.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_pillow_warns_of_are_read(warned_of, monkeypatch):
    folder, expected = warned_of
    monkeypatch.setattr(assembly, "memory_limit", lambda: 0)
    data = load_folder(folder, image_size=16)
    assert data.skipped == ()
    batches = zip(data.training_batches(4), expected.training_batches(4), strict=True)
    for (images, _), (same, _) in itertools.islice(batches, 6):
        assert np.array_equal(images, same)


def test_the_filters_of_the_program_decide_on_pillow_s_warnings(warned_of):
    picture = next(warned_of[0].rglob("*.png"))
    with pytest.raises(
        UnreadablePictureError, match=r"since warnings are errors here \(Image size"
    ):
        read_picture(picture, (16, 16, 3))
    with pytest.warns(Image.DecompressionBombWarning):
        assert read_picture(picture, (16, 16, 3)).shape == (16, 16, 3)
