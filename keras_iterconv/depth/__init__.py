"""The depth of a net in updates, for each sample, and its accuracy at several depths."""

from keras_iterconv.depth.accuracy import accuracy_by_depth
from keras_iterconv.depth.block_calls import BlockCall, block_calls, iterated_blocks
from keras_iterconv.depth.calibration import calibrate_depth
from keras_iterconv.depth.depth_model import processing_depth, with_depth
from keras_iterconv.depth.depth_plot import plot_accuracy_by_depth
from keras_iterconv.depth.depth_report import DepthPoint, DepthReport
from keras_iterconv.depth.depth_settings import set_depth
from keras_iterconv.depth.logger import DepthLogger
from keras_iterconv.depth.stream import predict_stream
from keras_iterconv.depth.unroll_schedule import UnrollSchedule

__all__ = [
    "BlockCall",
    "DepthLogger",
    "DepthPoint",
    "DepthReport",
    "UnrollSchedule",
    "accuracy_by_depth",
    "block_calls",
    "calibrate_depth",
    "iterated_blocks",
    "plot_accuracy_by_depth",
    "predict_stream",
    "processing_depth",
    "set_depth",
    "with_depth",
]
