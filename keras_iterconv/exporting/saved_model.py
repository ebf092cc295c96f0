"""Export of models to SavedModels, for TensorFlow without Keras."""

import os

import keras
import tensorflow as tf

from keras_iterconv.depth.block_calls import iterated_blocks
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.exported_function import infer, shared_depth
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task

SIGNATURE = "serving_default"
# The depth settings are inputs of a second signature: inputs of a SavedModel cannot be optional.
DEPTH_SIGNATURE = "with_depth"


def write_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    preprocessing: Preprocessing,
    task: Task = TASKS["classes"],
) -> None:
    """Write a model as a SavedModel.

    Its signature `serving_default` has the input `image`, float32 `[N, H, W, C]` in raw values, and
    the outputs of `infer`. A net of adaptive depth has a second signature, `with_depth`, whose
    further inputs are the scalars `threshold`, float32, and `max_unroll`, int32.

    Args:
        model: Functional model in float32, from standardised images to logits or probabilities.
        path: Folder to write.
        preprocessing: Standardisation of raw pixel values.
        task: Task of the model.

    Raises:
        ValueError: Blocks of adaptive depth differ in threshold or `max_unroll`, or the outputs are
            neither logits nor probabilities.
    """
    image = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, "image")

    @tf.function(input_signature=[image], autograph=False)
    def serve(image):
        return infer(model, image, preprocessing, None, task)

    @tf.function(
        input_signature=[
            image,
            tf.TensorSpec((), tf.float32, "threshold"),
            tf.TensorSpec((), tf.int32, "max_unroll"),
        ],
        autograph=False,
    )
    def serve_with_depth(image, threshold, max_unroll):
        depth = DepthSettings(max_unroll, threshold)
        return infer(model, image, preprocessing, depth, task)

    signatures = {SIGNATURE: serve}
    if shared_depth(model) is not None:
        signatures[DEPTH_SIGNATURE] = serve_with_depth
    # Not by `keras.Model.export`, which writes each weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.settings = [
        variable
        for block in iterated_blocks(model)
        if block.adjustable
        for variable in block.depth_variables
    ]
    tf.saved_model.save(module, os.fspath(path), signatures)
