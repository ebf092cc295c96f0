import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_iterconv import datasets
from keras_iterconv.datasets import CATALOGUE, list_datasets


def rows(images):
    """The pictures as sorted rows, to compare two sets of them."""
    flat = np.asarray(images, np.uint8).reshape(len(images), -1)
    return flat[np.lexsort(flat.T)]


def test_list_has_the_default_first():
    images = ["digits", "mnist", "cifar10", "cifar100"]
    generated = [*(f"digitclutter{n}" for n in (2, 3, 4, 5)), "prefix_sums"]
    assert list_datasets() == images + generated
    assert datasets.load().name == "digits"


def test_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match=r"`dataset`.*Did you mean 'mnist'.*dataset='minst'"):
        datasets.load("minst")


def test_digits_are_scikit_learns_each_once():
    data = datasets.load("digits")
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1293, 144, 360]
    source = load_digits()
    # Each picture with its label as one more pixel.
    mine = [np.c_[part.images.reshape(len(part), 64), part.labels] for part in parts]
    theirs = np.c_[source.data, source.target]
    assert np.array_equal(rows(np.concatenate(mine)), rows(theirs))


def test_digits_describe_themselves():
    data = datasets.load("digits")
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int32
    assert data.train.images.max() == data.scale == 16
    assert data.input_shape == (8, 8, 1)
    assert data.num_classes == 10
    assert data.classes == tuple("0123456789")


def test_shifted_digits_are_padded_with_their_background():
    for part in (datasets.load("digits").train, datasets.load("digits", limit_train=50).test):
        values, counts = np.unique(part.images[:, ::7, ::7], return_counts=True)
        assert part.padding == values[counts.argmax()]


def test_digits_are_cut_in_proportion_to_the_classes():
    data = datasets.load("digits")
    whole = np.bincount(load_digits().target)
    assert np.all(np.abs(np.bincount(data.test.labels) - 0.2 * whole) <= 1)
    assert np.all(np.abs(np.bincount(data.validation.labels) - 0.08 * whole) <= 1)


@pytest.mark.parametrize("limit", [None, 100])
def test_statistics_are_those_of_the_training_part_alone(limit):
    data = datasets.load("digits", limit_train=limit)
    assert data.mean == pytest.approx(data.train.images.astype(float).mean(), rel=1e-6)
    assert data.std == pytest.approx(data.train.images.astype(float).std(), rel=1e-6)
    assert data.mean.shape == data.std.shape == (1,)


@pytest.mark.parametrize(("limit", "validation"), [(900, 100), (90, 10), (10, 1), (1293, 144)])
def test_limit_keeps_nine_to_one_and_the_whole_test_part(limit, validation):
    whole, data = datasets.load("digits"), datasets.load("digits", limit_train=limit)
    assert len(data.train) == limit
    assert len(data.validation) == validation
    assert np.array_equal(data.test.images, whole.test.images)
    shares = np.bincount(whole.train.labels) * limit / len(whole.train)
    assert np.all(np.abs(np.bincount(data.train.labels, minlength=10) - shares) < 1)


@pytest.mark.parametrize(("share", "validation"), [(0.0, 0), (0.25, 360), (0.1, 144)])
def test_validation_takes_its_share_and_training_the_rest(share, validation):
    data = datasets.load("digits", validation_share=share)
    assert [len(data.train), len(data.validation)] == [1437 - validation, validation]
    whole = datasets.load("digits")
    assert np.array_equal(data.test.images, whole.test.images)
    both = [np.concatenate([d.train.images, d.validation.images]) for d in (data, whole)]
    assert np.array_equal(rows(both[0]), rows(both[1]))


@pytest.mark.parametrize(("share", "validation"), [(0.0, 0), (0.25, 30)])
def test_a_limit_keeps_the_share(share, validation):
    data = datasets.load("digits", limit_train=90, validation_share=share)
    assert [len(data.train), len(data.validation)] == [90, validation]


@pytest.mark.parametrize("share", [1e-3, 0.999, -0.1, 1.0, np.nan])
def test_a_share_that_leaves_a_part_without_a_class_is_refused(share):
    with pytest.raises(ValueError, match=r"`validation_share` must be 0, or from 0\.0070 to 0\.99"):
        datasets.load("digits", validation_share=share)


def test_a_validation_part_of_its_own_is_not_cut(tiny_digitclutter):
    with pytest.raises(ValueError, match="digitclutter3 has its own validation part"):
        datasets.load("digitclutter3", validation_share=0.0)
    assert not tiny_digitclutter.exists()


def test_unit_pixels_lie_between_0_and_1():
    data = datasets.load("digits", pixels="unit")
    scaled = (data.train.images - data.mean) / data.std
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert (data.mean.dtype, data.std.dtype) == (np.float32, np.float32)


def test_unit_pixels_of_each_channel(fake_cifar10):
    data = datasets.load("cifar10", limit_train=50, pixels="unit")
    assert data.mean.tolist() == [0, 0, 0]
    assert data.std.tolist() == [255, 255, 255]


def test_unknown_pixels_are_refused():
    with pytest.raises(ValueError, match=r"`pixels` must be one of standardized, unit.*pixels='u'"):
        datasets.load("digits", pixels="u")


def test_limit_chooses_among_the_training_part():
    whole, data = datasets.load("digits"), datasets.load("digits", limit_train=200)
    known = {picture.tobytes() for picture in whole.train.images}
    assert all(picture.tobytes() in known for picture in data.train.images)
    again = datasets.load("digits", limit_train=200)
    assert np.array_equal(data.train.images, again.train.images)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (9, "at least 10, one image for each class.*Received: limit_train=9"),
        (0, "at least 10.*Received: limit_train=0"),
        (-5, "at least 10.*Received: limit_train=-5"),
        (1294, "at most 1293.*Received: limit_train=1294"),
        (0.5, "an integer.*Received: limit_train=0.5"),
        (True, "an integer.*Received: limit_train=True"),
    ],
)
def test_limit_out_of_range(limit, message):
    with pytest.raises(ValueError, match=f"`limit_train` must be .*{message}"):
        datasets.load("digits", limit_train=limit)


def test_validation_is_cut_from_train_and_never_from_test(fake_mnist):
    data = datasets.load("mnist")
    images, labels = fake_mnist.splits["train"]
    assert [len(data.train), len(data.validation)] == [270, 30]
    cut = np.concatenate([data.train.images, data.validation.images])
    assert np.array_equal(rows(cut), rows(images))
    assert np.bincount(data.validation.labels).tolist() == [3] * 10
    numbers = data.train.images[:, 0, 0, 0].astype(int) * 256 + data.train.images[:, 0, 1, 0]
    assert np.array_equal(data.train.labels, labels[numbers])
    test_images, test_labels = fake_mnist.splits["test"]
    assert np.array_equal(data.test.images, test_images)
    assert np.array_equal(data.test.labels, test_labels)


def test_statistics_are_taken_channel_by_channel(fake_cifar10):
    data = datasets.load("cifar10", limit_train=50)
    pixels = data.train.images.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=1e-6)
    assert data.classes == fake_cifar10.classes


# The usual figures of the whole training sets; any large part of one comes near them.
KNOWN = {
    "mnist": ([33.318], [78.567]),
    "cifar10": ([125.307, 122.961, 113.858], [62.993, 62.089, 66.705]),
    "cifar100": ([129.304, 124.070, 112.434], [68.170, 65.392, 70.418]),
}


# CIFAR-10 is read by the same code as CIFAR-100 and takes eight seconds.
@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_real_data(name, real_tfds):
    real_tfds(name)
    data = datasets.load(name)
    entry = CATALOGUE[name]
    assert data.input_shape == entry.input_shape
    assert data.num_classes == entry.num_classes
    assert data.scale == entry.scale == data.train.images.max()
    per_class = np.bincount(data.validation.labels, minlength=entry.num_classes)
    train_class = np.bincount(data.train.labels, minlength=entry.num_classes)
    assert np.all(np.abs(per_class - (per_class + train_class) / 10) <= 1)
    np.testing.assert_allclose(data.mean, KNOWN[name][0], rtol=0.05)
    np.testing.assert_allclose(data.std, KNOWN[name][1], rtol=0.05)
