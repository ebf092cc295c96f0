import numpy as np
import pytest

from keras_iterconv.datasets.splitting import cut, cut_each_class, stratified_subset

UNEVEN = np.repeat(np.arange(4), [400, 30, 200, 70])


def test_cut_is_a_partition_with_every_class_in_proportion():
    kept, cut_off = cut(UNEVEN, 0.1)
    assert sorted([*kept, *cut_off]) == list(range(700))
    assert np.bincount(UNEVEN[cut_off]).tolist() == [40, 3, 20, 7]


def test_cut_does_not_follow_the_global_seed():
    np.random.seed(1)
    first = cut(UNEVEN, 0.1)
    np.random.seed(2)
    second = cut(UNEVEN, 0.1)
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("count", [1, 3, 4, 10, 71, 699, 700])
def test_subset_is_as_near_to_proportion_as_whole_samples_can_be(count):
    chosen = stratified_subset(UNEVEN, count)
    assert len(set(chosen.tolist())) == len(chosen) == count
    got = np.bincount(UNEVEN[chosen], minlength=4)
    exact = np.array([400, 30, 200, 70]) * count / 700
    assert np.all(np.abs(got - exact) < 1)


def test_subset_is_drawn_from_all_over_a_class():
    chosen = stratified_subset(UNEVEN, 70)
    first_class = chosen[UNEVEN[chosen] == 0]
    assert first_class.min() < 100
    assert first_class.max() > 300
    assert np.array_equal(chosen, stratified_subset(UNEVEN, 70))


def test_places_left_over_go_to_the_largest_remainders():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    # Exact shares of 7: 3.5, 2.1, 1.4.
    assert np.bincount(labels[stratified_subset(labels, 7)]).tolist() == [4, 2, 1]


def test_a_set_of_classes_is_cut_as_a_class_of_its_own():
    sets = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]], np.int32)
    for by_class, by_set in zip(cut(UNEVEN, 0.1), cut(sets[UNEVEN], 0.1), strict=True):
        assert np.array_equal(by_class, by_set)
    assert np.array_equal(stratified_subset(UNEVEN, 71), stratified_subset(sets[UNEVEN], 71))


@pytest.mark.parametrize(("share", "counts"), [(0.1, [40, 3, 20, 7]), (0.5, [200, 15, 100, 35])])
def test_each_class_is_cut_by_its_share(share, counts):
    kept, cut_off = cut_each_class(UNEVEN, share)
    assert sorted([*kept, *cut_off]) == list(range(700))
    assert np.bincount(UNEVEN[cut_off]).tolist() == counts
    assert np.array_equal(cut_off, cut_each_class(UNEVEN, share)[1])


@pytest.mark.parametrize(("share", "cut_of_three"), [(0.01, 1), (0.5, 2), (0.99, 2)])
def test_few_images_of_a_class_are_in_both_parts(share, cut_of_three):
    labels = np.array([5, 1, 1, 9, 9, 9])
    _, cut_off = cut_each_class(labels, share)
    assert np.bincount(labels[cut_off], minlength=10)[[5, 1, 9]].tolist() == [0, 1, cut_of_three]
