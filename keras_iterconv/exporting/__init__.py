"""A model as a SavedModel or an ONNX file, with its adaptive depth."""
