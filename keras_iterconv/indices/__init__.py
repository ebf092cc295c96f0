"""Convergence, recurrence and divergence indices of trained nets (Lippl et al.)."""

from keras_iterconv.indices.index_plot import plot_indices
from keras_iterconv.indices.index_report import IndexReport
from keras_iterconv.indices.measure import measure_indices

__all__ = ["IndexReport", "measure_indices", "plot_indices"]
