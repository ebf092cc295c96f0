"""Data sets that TensorFlow Datasets' own writer writes, for the tests."""

import contextlib
import io

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

NAMES = tfds.features.ClassLabel(names=("left", "right"))


def write_set(
    folder,
    name,
    splits,
    shape,
    *,
    draw=None,
    label=NAMES,
    shards=None,
    unlabelled=(),
):
    """Write a data set, and return its images and labels by split, in the order of the records.

    Args:
        folder: The TFDS folder.
        name: Name of the data set.
        splits: Number of images of each split; labels alternate.
        shape: Shape of the images; None where sizes differ.
        draw: Function from a generator and the label to an image; None for noise of that shape.
        label: Feature of the labels.
        shards: Number of files of a split.
        unlabelled: Splits with the label -1.
    """
    written = {split: ([], []) for split in splits}
    image = tfds.features.Image(shape=shape, encoding_format="png")

    def noise(generator, number):
        return generator.integers(0, 256, shape, np.uint8)

    # As in another process, where nothing but the files is known.
    class Writer(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            features = {"image": image, "label": label, "note": tfds.features.Text()}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            generator = np.random.default_rng(len(split))
            for number in range(splits[split]):
                kind = -1 if split in unlabelled else number % 2
                drawn = (draw or noise)(generator, kind)
                written[split][0].append(drawn)
                written[split][1].append(kind)
                yield number, {"image": drawn, "label": kind, "note": "of no use"}

    Writer.name = name
    config = tfds.download.DownloadConfig(num_shards=shards)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder = Writer(data_dir=folder)
        builder.download_and_prepare(
            download_config=config, download_dir=folder.parent / "downloads"
        )
    return written


def change_records(folder, split, change):
    """Write a split's only file again, with its list of records changed by a function."""
    (path,) = (str(path) for path in folder.rglob(f"*-{split}.tfrecord*"))
    records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    with tf.io.TFRecordWriter(path) as writer:
        for record in change(records):
            writer.write(record)


def draw_flower(generator, label):
    """Return a picture of a size of its own, dark or light by its label."""
    shape = (*generator.integers(20, 70, 2), 3)
    return (generator.integers(0, 90, shape) + 150 * label).astype(np.uint8)
