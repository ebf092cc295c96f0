"""The data set of a published model is looked for on this machine only."""

import pytest
import tensorflow_datasets as tfds

from keras_iterconv import datasets
from keras_iterconv.datasets import DatasetError, load_published_data, tfds_images
from tests.support.comparisons import one_sentence
from tests.support.tfds_sets import write_set


@pytest.fixture
def folder(tmp_path, monkeypatch):
    def refuse(*_):
        pytest.fail("A download was started.")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds_images, "download", refuse)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    return tmp_path / "tfds"


def entry(name, sha256=None, shape=(8, 8, 1)):
    source = {"folder": None, "test_share": 0.2, "sha256": sha256}
    return {"dataset": name, "input_shape": list(shape), "data_source": source}


@pytest.mark.parametrize(
    "name", ["oxford_flowers102", "cifar10_corrupted/fog_1", "fashion_mnist:3.0.1", "Pets"]
)
def test_nothing_is_downloaded(folder, name):
    """The set's folder is there, but not what is in it."""
    (folder / name.split("/")[0].split(":")[0]).mkdir(parents=True)
    with pytest.raises(DatasetError) as error:
        load_published_data(entry(name))
    assert f"images of {name} are not on this machine: {folder}" in one_sentence(error)


def test_only_the_records_of_the_training(tmp_path, monkeypatch):
    folder = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    write_set(folder, "some", {"train": 12, "test": 4}, (8, 8, 1))
    digest = datasets.load("some").sha256
    assert len(load_published_data(entry("some", digest)).test) == 4
    for other in (None, "0" * 64):
        with pytest.raises(DatasetError, match="are not those of the training"):
            load_published_data(entry("some", other))
