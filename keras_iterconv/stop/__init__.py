"""Rules by which a sample of `Iterate` stops."""

from keras_iterconv.stop.halting import Halting
from keras_iterconv.stop.readout_divergence import ReadoutDivergence
from keras_iterconv.stop.stable_prediction import StablePrediction
from keras_iterconv.stop.stopping_rule import StoppingRule
from keras_iterconv.stop.update_norm import UpdateNorm

__all__ = ["Halting", "ReadoutDivergence", "StablePrediction", "StoppingRule", "UpdateNorm"]
