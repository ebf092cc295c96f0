"""Each preset trains a small net: its rate, decay, clip, pixels and augmentation."""

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.datasets import steps_per_epoch, training_batches
from keras_iterconv.models.registry import list_settings
from training.optimization import make_optimizer
from training.settings import PRESETS, make_settings

STEPS = 30


def settle(preset):
    """Return the settings of a preset, on images that need no download."""
    if PRESETS[preset]["dataset"].startswith("digitclutter"):
        return make_settings(preset, batch_size=32)
    return make_settings(preset, dataset="digits")


def make_small(settings, data):
    """Return the preset's net, of few blocks and channels or, where it has one block, updates."""
    own = list_settings(settings.model)
    small = {"max_unroll": 10}
    if settings.model == "nais_fast":
        small = {"filters": (16,)}
    elif "width" in own:
        small = {"blocks": 1, "width": 8}
    elif "blocks" in own:
        small = {"blocks": 1, "filters": (16,)}
    given = {**settings.overrides(), **small}
    return ki.create_model(settings.model, data.input_shape, data.num_classes, **given)


# Presets that differ in nothing but the data set are one run.
RUNS = {settle(preset): preset for preset in PRESETS}


@pytest.mark.parametrize("settings", RUNS, ids=RUNS.values())
def test_the_loss_falls_in_30_steps(settings, tiny_digitclutter):
    data = datasets.load(
        settings.dataset, validation_share=settings.validation_share, pixels=settings.pixels
    )
    model = make_small(settings, data)
    steps = steps_per_epoch(data.train, settings.batch_size)
    optimizer = make_optimizer(settings, steps, model.trainable_variables)
    model.compile(optimizer, data.task.make_loss())
    batches = training_batches(
        data.train,
        mean=data.mean,
        std=data.std,
        batch_size=settings.batch_size,
        seed=settings.seed,
        augment=settings.augment,
    )
    losses = []
    for images, labels in batches.take(STEPS):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images, labels)))
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
