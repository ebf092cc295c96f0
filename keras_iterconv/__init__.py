"""Networks that compute by iteration, for TensorFlow and Keras.

The examples of the docstrings begin after these lines, and give the outputs that they show:

    import keras, numpy as np, tensorflow as tf
    import keras_iterconv as ki

    keras.utils.set_random_seed(0)

"See also" gives names as in `ki.`: `stop.UpdateNorm` is `ki.stop.UpdateNorm`.
"""

from keras_iterconv import _environment  # noqa: F401  isort: skip  # before TensorFlow

from keras_iterconv import triangle_schedule  # noqa: F401  isort: skip  # for files that have it
from keras_iterconv import datasets, projections, spectral, stop, unrolling
from keras_iterconv.certificates import StabilityReport, certify
from keras_iterconv.chains import Chain, chain
from keras_iterconv.coupling import GradientCoupling
from keras_iterconv.depth import (
    BlockCall,
    DepthLogger,
    DepthPoint,
    DepthReport,
    UnrollSchedule,
    accuracy_by_depth,
    block_calls,
    calibrate_depth,
    iterated_blocks,
    plot_accuracy_by_depth,
    predict_stream,
    processing_depth,
    set_depth,
    with_depth,
)
from keras_iterconv.exporting import (
    QuantizationReport,
    export_litert,
    export_onnx,
    export_saved_model,
    quantize_onnx,
)
from keras_iterconv.gradient_error import GradientReport, gradient_error
from keras_iterconv.indices import IndexReport, measure_indices, plot_indices
from keras_iterconv.layers import (
    Iterate,
    IteratedBlock,
    NAISConv2D,
    NAISDense,
    ResidualBlock,
    ResidualStage,
    ResidualUpdate,
)
from keras_iterconv.metrics import AllPositionsAccuracy, ExactSetAccuracy
from keras_iterconv.models import create_model, list_models, whiten
from keras_iterconv.not_finite import NotFinite, find_not_finite
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.trainer import IterativeModel
from keras_iterconv.zoo import ZooError, list_pretrained, load_pretrained

__version__ = "0.2.0"

__all__ = [
    "AllPositionsAccuracy",
    "BlockCall",
    "Chain",
    "DepthLogger",
    "DepthPoint",
    "DepthReport",
    "ExactSetAccuracy",
    "GradientCoupling",
    "GradientReport",
    "IndexReport",
    "Iterate",
    "IteratedBlock",
    "IterativeModel",
    "NAISConv2D",
    "NAISDense",
    "NotFinite",
    "Preprocessing",
    "QuantizationReport",
    "ResidualBlock",
    "ResidualStage",
    "ResidualUpdate",
    "StabilityReport",
    "UnrollSchedule",
    "ZooError",
    "accuracy_by_depth",
    "block_calls",
    "calibrate_depth",
    "certify",
    "chain",
    "create_model",
    "datasets",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "find_not_finite",
    "gradient_error",
    "iterated_blocks",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "measure_indices",
    "plot_accuracy_by_depth",
    "plot_indices",
    "predict_stream",
    "processing_depth",
    "projections",
    "quantize_onnx",
    "set_depth",
    "spectral",
    "stop",
    "unrolling",
    "whiten",
    "with_depth",
]
