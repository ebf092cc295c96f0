"""Export of a model, with its adaptive depth, to a SavedModel or an ONNX file."""

from keras_iterconv.exporting.export_functions import export_onnx, export_saved_model

__all__ = ["export_onnx", "export_saved_model"]
