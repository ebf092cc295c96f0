"""How iterative and how convergent a trained net is."""

from keras_iterconv.indices.measure import measure_indices
from keras_iterconv.indices.plot import plot_indices
from keras_iterconv.indices.report import IndexReport

__all__ = ["IndexReport", "measure_indices", "plot_indices"]
