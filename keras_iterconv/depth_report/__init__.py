"""What accuracy a trained net has at which depth."""

from keras_iterconv.depth_report.measure import accuracy_by_depth
from keras_iterconv.depth_report.plot import plot_accuracy_by_depth
from keras_iterconv.depth_report.report import DepthPoint, DepthReport

__all__ = ["DepthPoint", "DepthReport", "accuracy_by_depth", "plot_accuracy_by_depth"]
