"""Publication of trained models as SavedModel and ONNX files, and prediction without TensorFlow."""
