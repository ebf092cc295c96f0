"""Trained models as SavedModel and ONNX files, and their answers without TensorFlow."""
