import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv import datasets
from keras_iterconv._support.extras import MissingExtraError
from keras_iterconv.datasets import (
    AUGMENTATIONS,
    Split,
    evaluation_batches,
    get_augmentation,
    steps_per_epoch,
    training_batches,
)

COUNT = 23


def numbered(count=COUNT, shape=(8, 8, 3)):
    """A split whose labels are the sample numbers."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32))


def batches(split=None, *, steps, **arguments):
    split = split or numbered()
    channels = split.images.shape[-1]
    given = {
        "mean": np.linspace(100, 120, channels, dtype=np.float32),
        "std": np.linspace(50, 60, channels, dtype=np.float32),
        "batch_size": 5,
        "seed": 3,
    }
    dataset = training_batches(split, **(given | arguments))
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(steps)]


def order(epochs, batch_size=5, **arguments):
    """The sample numbers of each epoch, int [epochs, steps * batch_size]."""
    steps = COUNT // batch_size
    found = batches(steps=epochs * steps, batch_size=batch_size, **arguments)
    return np.concatenate([labels for _, labels in found]).reshape(epochs, steps * batch_size)


@pytest.fixture(params=AUGMENTATIONS)
def augment(request):
    try:
        get_augmentation(request.param)
    except MissingExtraError as error:
        pytest.skip(str(error))
    return request.param


def test_every_sample_at_most_once_an_epoch_and_another_tail_each_time():
    epochs = order(30)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 20
    tails = {tuple(sorted(set(range(COUNT)) - set(epoch.tolist()))) for epoch in epochs}
    assert len(tails) > 20
    assert len({tuple(epoch) for epoch in epochs}) == 30
    # Thirty epochs that left out three of 23 each have left out nearly every sample once.
    assert len(set().union(*tails)) > 20


def test_places_in_the_order_are_taken_uniformly():
    first = np.concatenate([order(200, seed=seed)[:, 0] for seed in (1, 2)])
    counts = np.bincount(first, minlength=COUNT)
    chi_square = ((counts - 400 / COUNT) ** 2 / (400 / COUNT)).sum()
    assert chi_square < 48  # The 99.9th percentile at 22 degrees of freedom.


def test_order_depends_on_seed_and_epoch_and_tells_them_apart():
    assert np.array_equal(order(3, seed=1), order(3, seed=1))
    assert not np.array_equal(order(1, seed=1), order(1, seed=2))
    assert not np.array_equal(order(1, seed=1, initial_epoch=2), order(1, seed=2, initial_epoch=1))


def test_order_depends_on_nothing_else(augment):
    plain = order(2)
    tf.random.set_seed(99)
    assert np.array_equal(order(2, augment=augment), plain)
    assert np.array_equal(order(2, batch_size=7)[:, :20], plain)


def test_a_resumed_run_sees_the_same_bits(augment):
    whole = batches(steps=16, augment=augment)
    tf.random.set_seed(99)
    resumed = batches(steps=8, augment=augment, initial_epoch=2)
    for (images, labels), (images_again, labels_again) in zip(whole[8:], resumed, strict=True):
        assert images.tobytes() == images_again.tobytes()
        assert labels.tobytes() == labels_again.tobytes()


def test_sets_of_classes_stay_with_their_images():
    split = numbered()
    sets = (split.labels[:, np.newaxis] >> np.arange(5)) % 2
    sets_split = Split(split.images, sets.astype(np.int32))
    for (images, labels), (images_again, rows) in zip(
        batches(split, steps=4), batches(sets_split, steps=4), strict=True
    ):
        assert np.array_equal(images, images_again)
        assert rows.dtype == np.int32
        assert np.array_equal(rows, sets[labels])
    whole = evaluation_batches(sets_split, mean=np.zeros(3), std=np.ones(3), batch_size=9)
    assert np.array_equal(np.concatenate([y for _, y in whole.as_numpy_iterator()]), sets)


def by_number(found):
    return {n: image for images, labels in found for n, image in zip(labels, images, strict=True)}


def test_augmentation_depends_on_seed_epoch_and_sample_alone(augment):
    of_five = by_number(batches(steps=4, augment=augment))
    of_seven = by_number(batches(steps=3, batch_size=7, augment=augment))
    assert (len(of_five), len(of_seven)) == (20, 21)
    for number, image in of_five.items():
        assert np.array_equal(image, of_seven[number])


@pytest.mark.parametrize("change", [{"initial_epoch": 1}, {"seed": 4}])
def test_augmentation_changes_with_seed_and_epoch(change):
    first = by_number(batches(steps=4, augment="standard"))
    second = by_number(batches(steps=4, augment="standard", **change))
    both = first.keys() & second.keys()
    different = sum(not np.array_equal(first[n], second[n]) for n in both)
    # Eighteen outcomes an image: about one in eighteen is the same by chance.
    assert different > 0.7 * len(both)


def test_alternating_mirrors_each_image_in_every_other_epoch():
    split = numbered()
    scaling = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    mirrored = np.full((6, COUNT), -1)
    found = batches(split, steps=24, augment="alternating", **scaling)
    for epoch in range(6):
        for number, image in by_number(found[4 * epoch : 4 * epoch + 4]).items():
            # Images of 8 pixels are not shifted.
            same = np.array_equal(image, split.images[number])
            assert same != np.array_equal(image, split.images[number][:, ::-1])
            mirrored[epoch, number] = not same
    seen = mirrored >= 0
    assert (seen.sum(axis=0) > 1).all()
    changes = mirrored ^ (np.arange(6) % 2)[:, np.newaxis]
    first = np.where(seen, changes, -1).max(axis=0)
    assert (np.where(seen, changes, first) == first).all()
    assert 0.2 < first.mean() < 0.8


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_standardised_and_belong_to_their_labels(channels):
    split = numbered(shape=(8, 8, channels))
    mean = np.linspace(100, 120, channels, dtype=np.float32)
    std = np.linspace(50, 60, channels, dtype=np.float32)
    for images, labels in batches(split, steps=4):
        expected = (split.images[labels].astype(np.float32) - mean) / std
        np.testing.assert_allclose(images, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "border"), [(0, -2.0), (25, -1.5), (None, 0.0)])
def test_padding_is_that_of_the_part_or_the_mean(channels, padding, border):
    images = np.full((80, 8, 8, channels), 200, np.uint8)
    # A part that is taken from another one keeps its padding.
    split = Split(images, np.arange(80, dtype=np.int32), padding).take(np.arange(40))
    mean, std = np.full(channels, 100, np.float32), np.full(channels, 50, np.float32)
    found = batches(split, steps=8, augment="standard", mean=mean, std=std)
    assert set(np.unique([images for images, _ in found])) == {border, 2.0}


def test_standardised_training_data_have_mean_zero_and_deviation_one():
    data = datasets.load("digits")
    found = evaluation_batches(data.train, mean=data.mean, std=data.std, batch_size=200)
    pixels = np.concatenate([images for images, _ in found.as_numpy_iterator()])
    assert abs(pixels.mean(dtype=np.float64)) < 1e-6
    assert pixels.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_shapes_types_and_options():
    split = numbered()
    dataset = training_batches(split, mean=np.zeros(3), std=np.ones(3), batch_size=5, seed=0)
    images, labels = dataset.element_spec
    assert (images.shape, images.dtype) == ((5, 8, 8, 3), tf.float32)
    assert (labels.shape, labels.dtype) == ((5,), tf.int32)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.options().autotune.enabled is False
    assert dataset.options().deterministic is True


def test_steps_per_epoch():
    assert steps_per_epoch(numbered(), 5) == 4
    assert steps_per_epoch(numbered(), 23) == 1
    assert steps_per_epoch(numbered(), 1) == 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 24}, "`batch_size` must be at most 23.*one batch.*batch_size=24"),
        ({"batch_size": 0}, "`batch_size` must be at least 1.*batch_size=0"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer.*batch_size=2.5"),
        ({"seed": -1}, "`seed` must be an integer.*seed=-1"),
        ({"seed": None}, "`seed` must be an integer.*seed=None"),
        ({"initial_epoch": -1}, "`initial_epoch` must be an integer.*initial_epoch=-1"),
        ({"augment": "flip"}, "`augment` must be one of.*augment='flip'"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        batches(steps=1, **change)


def test_large_seeds_are_told_apart():
    assert not np.array_equal(order(1, seed=2**62), order(1, seed=2**62 + 1))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_evaluation_is_in_order_whole_and_finite(batch_size):
    split = numbered()
    mean, std = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    dataset = evaluation_batches(split, mean=mean, std=std, batch_size=batch_size)
    found = list(dataset.as_numpy_iterator())
    assert len(found) == dataset.cardinality() == -(-COUNT // batch_size)
    assert np.concatenate([labels for _, labels in found]).tolist() == list(range(COUNT))
    expected = (split.images.astype(np.float32) - mean) / std
    np.testing.assert_allclose(np.concatenate([x for x, _ in found]), expected, rtol=1e-6)
    assert dataset.options().autotune.enabled is False


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        evaluation_batches(numbered(), mean=np.zeros(3), std=np.ones(3), batch_size=0)


class Collector(keras.Model):
    """Collects the labels that Keras hands to a training step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def train_step(self, data):
        self.seen.append(data[1].numpy())
        return {"loss": 0.0}

    def test_step(self, data):
        return {"loss": 0.0}


def test_keras_goes_through_the_epochs_with_one_iterator():
    split = numbered()
    model = Collector()
    model.compile(run_eagerly=True)
    statistics = {"mean": np.zeros(3), "std": np.ones(3), "batch_size": 5}
    model.fit(
        training_batches(split, seed=3, **statistics),
        validation_data=evaluation_batches(split, **statistics),
        steps_per_epoch=steps_per_epoch(split, 5),
        epochs=3,
        shuffle=False,
        verbose=0,
    )
    assert np.array_equal(np.concatenate(model.seen), order(3).ravel())


def test_distribution_changes_nothing_and_warns_of_nothing(capfd):
    # One replica, since the devices of this process may be settled already; two get the same path.
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    arguments = {"mean": np.zeros(3), "std": np.ones(3), "batch_size": 6}
    for dataset in (
        training_batches(numbered(), seed=1, augment="standard", **arguments),
        evaluation_batches(numbered(), **arguments),
    ):
        distributed = iter(strategy.experimental_distribute_dataset(dataset))
        for images, labels in dataset.take(4):
            images_again, labels_again = next(distributed)
            assert np.array_equal(images, images_again)
            assert np.array_equal(labels, labels_again)
    assert "auto_shard" not in capfd.readouterr().err


@pytest.mark.parametrize(("batch", "of"), [(5, 2), (2, 3)])
def test_the_shares_of_the_replicas_make_the_batch(batch, of):
    """Also of a worker with two replicas, from a step within an epoch on, and empty shares."""
    options = {"batch_size": batch, "augment": "standard", "initial_epoch": 1, "initial_step": 1}
    workers = [range(of)] if of < 3 else [range(2), range(2, 3)]
    streams = [batches(steps=14 * len(own), replicas=own, of=of, **options) for own in workers]
    for step, whole in enumerate(batches(steps=14, **options)):
        shares = [
            share
            for own, stream in zip(workers, streams, strict=True)
            for share in stream[step * len(own) : (step + 1) * len(own)]
        ]
        for i, expected in enumerate(whole):
            sizes = [len(share[i]) for share in shares]
            assert max(sizes) - min(sizes) <= 1
            np.testing.assert_array_equal(np.concatenate([s[i] for s in shares]), expected)
