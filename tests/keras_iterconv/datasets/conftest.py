"""Fixtures of the data tests: no network, a made-up TFDS folder, and the real one if there is."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from keras_iterconv.datasets.tfds_reader import tfds_folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only this machine can be connected to, so no test depends on being online or offline."""
    look_up = socket.getaddrinfo

    def local_only(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost", "::1"):
            pytest.fail(f"A test tried to connect to {host}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)


class FakeFolder:
    """A TFDS folder with made-up pictures of a data set that TFDS knows."""

    def __init__(self, root: Path, name: str, shape: tuple, counts: dict[str, int]):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        cls = tfds.builder_cls(name)
        self.root = root
        self.path = root / name / str(cls.VERSION)
        self.path.mkdir(parents=True)
        features = tfds.builder(name, data_dir=root.parent / "none").info.features
        features.save_config(self.path)
        classes = features["label"].num_classes
        self.classes = tuple(f"kind {label}" for label in range(classes))
        (self.path / "label.labels.txt").write_text("\n".join(self.classes))

        self.splits = {}
        first = 0
        for split, count in counts.items():
            numbers = np.arange(first, first + count)
            first += count
            # No two pictures alike: the first two pixels spell out the number.
            images = np.random.default_rng(first).integers(0, 256, (count, *shape), np.uint8)
            images[:, 0, 0, 0], images[:, 0, 1, 0] = numbers // 256, numbers % 256
            labels = (numbers % classes).astype(np.int64)
            self.splits[split] = (images, labels)
            with tf.io.TFRecordWriter(str(self.record(split))) as writer:
                for image, one in zip(images, labels, strict=True):
                    writer.write(_example(tf, image, one))
        info = {
            "name": name,
            "version": str(cls.VERSION),
            "fileFormat": "tfrecord",
            "supervisedKeys": {
                "tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}
            },
            "splits": [
                {
                    "name": split,
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                    "numBytes": "1",
                    "shardLengths": [str(count)],
                }
                for split, count in counts.items()
            ],
        }
        self.info = self.path / "dataset_info.json"
        self.info.write_text(json.dumps(info))

    def record(self, split: str) -> Path:
        return self.path / f"{self.path.parent.name}-{split}.tfrecord-00000-of-00001"


def _example(tf, image, label) -> bytes:
    png = tf.io.encode_png(image).numpy()
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"made up"])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    folder = FakeFolder(tmp_path / "tfds", "mnist", (28, 28, 1), {"train": 300, "test": 40})
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder.root))
    return folder


@pytest.fixture
def fake_cifar10(tmp_path, monkeypatch):
    folder = FakeFolder(tmp_path / "tfds", "cifar10", (32, 32, 3), {"train": 200, "test": 20})
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder.root))
    return folder


@pytest.fixture
def real_tfds():
    """Skip unless the TFDS folder of this machine holds the named data set."""

    def require(name: str) -> None:
        if not os.path.isdir(os.path.join(tfds_folder(), name)):
            pytest.skip(f"{tfds_folder()} does not hold {name}: set TFDS_DATA_DIR")

    return require
