"""Models as SavedModels, for TensorFlow without Keras."""

import os

import keras
import tensorflow as tf

from .inference import Depth, Normalization, infer, shared_depth

SIGNATURE = "serving_default"
# With the depth as further inputs; a SavedModel knows no optional ones.
DEPTH_SIGNATURE = "with_depth"


def write_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    normalization: Normalization,
    multi_label: bool = False,
) -> None:
    """Write a model as a SavedModel.

    Its signature `serving_default` takes `image`, float32 `[N, H, W, C]` in raw values, and returns
    `logits` and `probabilities`, float32 `[N, classes]`, `depth` and `status`, int32
    `[N, blocks]`. A net of adaptive depth has a second one, `with_depth`, that also takes
    `threshold`, float32, and `max_unroll`, int32, scalars.

    Args:
        model: A functional model in float32, from standardised images to logits.
        path: The folder to make.
        normalization: Mean and standard deviation of raw pixel values.
        multi_label: Whether each class has a probability of its own.

    Raises:
        ValueError: Blocks of adaptive depth differ in threshold or `max_unroll`.
    """

    def serve(image):
        return infer(model, image, normalization, None, multi_label)

    def serve_with_depth(image, threshold, max_unroll):
        return infer(model, image, normalization, Depth(threshold, max_unroll), multi_label)

    image = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, "image")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, serve, [image])
    if shared_depth(model) is not None:
        scalars = [
            tf.TensorSpec((), tf.float32, "threshold"),
            tf.TensorSpec((), tf.int32, "max_unroll"),
        ]
        archive.add_endpoint(DEPTH_SIGNATURE, serve_with_depth, [image, *scalars])
    archive.write_out(os.fspath(path), verbose=False)
