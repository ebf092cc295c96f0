"""Export of a model, with its adaptive depth, to a SavedModel or an ONNX file."""
