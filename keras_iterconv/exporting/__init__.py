"""Export of a model, with its adaptive depth, to a SavedModel, an ONNX or a LiteRT file."""

from keras_iterconv.exporting.export_functions import export_onnx, export_saved_model
from keras_iterconv.exporting.litert import export_litert
from keras_iterconv.exporting.quantization import quantize_onnx
from keras_iterconv.exporting.quantization_report import QuantizationReport

__all__ = [
    "QuantizationReport",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "quantize_onnx",
]
