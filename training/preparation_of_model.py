"""What a model needs of its data set before the first step: a whitening layer, built metrics."""

import keras
import numpy as np
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.datasets import ImageData
from keras_iterconv.models.fast_net import has_whitening
from keras_iterconv.tasks import TASKS

# Number of training images from which a first layer that whitens is computed.
WHITENING_IMAGES = 5000


def whiten_from(model: keras.Model, data: ImageData) -> None:
    """Compute the first layer of a net that whitens its images, from training images."""
    if has_whitening(model):
        split = data.train.take(np.arange(min(WHITENING_IMAGES, len(data.train))))
        ki.whiten(model, (split.images[:] - data.mean) / data.std)


def build_metrics(model: keras.Model, data: ImageData) -> None:
    """Create the metrics' variables, which Keras creates in the first step of an epoch.

    The state of an interrupted epoch is assigned to them before that step.
    """
    shape = data.train.labels.shape[1:]
    labels = tf.zeros([1, *shape], tf.int32)
    positions = shape if data.task is TASKS["labels_per_position"] else ()
    logits = tf.zeros([1, *positions, data.num_classes])
    for metric in model.metrics:
        if not getattr(metric, "built", True):
            metric.build(labels, logits)
