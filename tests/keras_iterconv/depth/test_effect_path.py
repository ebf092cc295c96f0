"""Paths of thresholds that loosen one block at a time, compared with a search of all settings."""

import itertools

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.depth.depth_settings import read_settings
from keras_iterconv.depth.effect_path import effect_path

LEVELS = 4
THRESHOLDS = [8.0, 4.0, 2.0, 1.0]


class Net:
    """A net whose blocks have effects on its outputs that add up; not a TensorFlow function."""

    output = "logits"

    def __init__(self, depths, effects):
        """Take the updates and the effect of each block at each level, from the loosest on."""
        self.blocks = [ki.NAISDense(2, threshold=THRESHOLDS[-1]) for _ in depths]
        self.depths, self.effects = np.array(depths), np.array(effects)

    def places(self):
        return [THRESHOLDS.index(block.threshold) for block in self.blocks]

    def __call__(self, inputs):
        own = np.arange(len(self.blocks)), self.places()
        # The reference is (0, ..., 0, 1), and a block moves one output.
        logits = np.append(np.sqrt(self.effects[own]), 1.0)
        count = len(inputs)
        return {
            "depth": np.tile(self.depths[own], (count, 1)),
            "logits": np.tile(logits, (count, 1)),
        }

    def levels(self):
        own = read_settings(self.blocks)
        return [tuple(each._replace(threshold=t) for each in own) for t in THRESHOLDS]

    def measure(self, places):
        own = np.arange(len(self.blocks)), list(places)
        return self.depths[own].sum(), self.effects[own].sum()


def path_of(net, sizes=(3,)):
    batches = [np.zeros((size, 1)) for size in sizes]
    found = effect_path(net, net.blocks, net.levels(), batches)
    return [[THRESHOLDS.index(each.threshold) for each in settings] for settings in found]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_settings_move_the_outputs_less(seed):
    generator = np.random.default_rng(seed)
    depths = np.sort(generator.uniform(1, 20, (3, LEVELS)), axis=1)
    effects = np.sort(generator.uniform(0, 1, (3, LEVELS)) ** 3, axis=1)[:, ::-1].copy()
    effects[:, -1] = 0
    net = Net(depths, effects)
    path = path_of(net)
    assert path[0] == [0, 0, 0]
    assert path[-1] == [LEVELS - 1] * 3
    every = [net.measure(places) for places in itertools.product(range(LEVELS), repeat=3)]
    for places in path:
        updates, effect = net.measure(places)
        assert min(each for made, each in every if made <= updates + 1e-9) >= effect - 1e-9
    changed = [np.count_nonzero(np.diff(pair, axis=0)) for pair in itertools.pairwise(path)]
    assert set(changed) == {1}


def test_a_block_whose_updates_do_nothing_stops_first():
    net = Net([[1, 2, 3, 4], [1, 2, 3, 4]], [[0.9, 0.6, 0.3, 0], [0, 0, 0, 0]])
    assert path_of(net)[-4:] == [[3, 0], [3, 1], [3, 2], [3, 3]]


def test_levels_that_save_nothing_are_left_out():
    net = Net([[5, 5, 5, 5], [1, 2, 3, 4]], [[0.5, 0.5, 0.5, 0], [6, 3, 1, 0]])
    assert path_of(net) == [[3, 0], [3, 1], [3, 2], [3, 3]]


def test_outputs_that_are_not_finite_come_last():
    net = Net([[1, 2, 3, 4], [1, 2, 3, 4]], [[np.inf, np.inf, 0.3, 0], [9, 2, 1, 0]])
    assert path_of(net)[0] == [0, 0]
    assert path_of(net)[1] == [2, 0]


def is_monotone(path):
    return all((np.diff(pair, axis=0) >= 0).all() for pair in itertools.pairwise(path))


def test_outputs_that_are_not_finite_come_last_where_little_is_saved():
    net = Net([[1.4, 1.6, 1.8, 2], [1, 2, 3, 4]], [[np.inf, np.inf, 0.3, 0], [9, 2, 1, 0]])
    path = path_of(net)
    assert path[:2] == [[0, 0], [2, 0]]
    assert is_monotone(path)


@pytest.mark.parametrize("seed", range(20))
def test_equal_prices_do_not_change_the_order_by_rounding(seed):
    generator = np.random.default_rng(seed)
    depths = np.sort(generator.uniform(1, 20, (2, LEVELS)), axis=1)
    effects = (depths[:, -1:] - depths) * generator.uniform(0.1, 1, (2, 1))
    path = path_of(Net(depths, effects))
    assert path[0] == [0, 0]
    assert is_monotone(path)


def test_samples_that_are_not_finite_count_nowhere():
    net = Net([[1, 2, 3, 4], [1, 2, 3, 4]], [[0.9, 0.6, 0.3, 0], [9, 2, 1, 0]])
    expected = path_of(net)
    run = Net.__call__

    class WithNaN(Net):
        def __call__(self, inputs):
            found = run(self, inputs)
            found["logits"][0] = np.nan
            return found

    broken = WithNaN(net.depths, net.effects)
    assert path_of(broken, (3, 2)) == expected
