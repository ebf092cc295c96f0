"""The names that code outside is written against."""

import inspect
import re

import pytest

import keras_iterconv as ki

# From the design; names that are still to come are not in it.
SIGNATURES = {
    ki.NAISDense: "units, max_unroll=30, threshold=None, step_size=0.1, activation='relu', "
    "shift=0.01, rank=None, bound=None, initial_state='zeros', gradient='unroll', tied=True, "
    "non_autonomous=True, solver='picard', settling=0.0",
    ki.NAISConv2D: "filters, kernel_size=3, max_unroll=10, threshold=None, step_size=1.0, "
    "activation='relu', margin=0.01, center_margin=0.05, center='trainable', "
    "initial_state='input', gradient='unroll', tied=True, solver='picard', settling=0.0",
    ki.Iterate: "update, max_unroll=10, stop=None, min_unroll=1, initial_state='input', tied=True, "
    "gradient='unroll', truncate=None, settling=0.0, returns=()",
    ki.stop.UpdateNorm: "threshold, relative=False",
    ki.stop.Halting: "layer, threshold=0.5, ponder=0.0",
    ki.stop.StablePrediction: "readout, threshold=2",
    ki.stop.ReadoutDivergence: "readout, threshold",
    ki.ResidualBlock: "filters, lipschitz_cap=None",
    ki.ResidualStage: "filters, blocks, skip_from='previous', shared_initialization=False, "
    "lipschitz_cap=None",
    ki.GradientCoupling: "strength, kernel='uniform', members=None",
    ki.measure_indices: "model, dataset",
    ki.chain: "model, blocks, name=None",
    ki.certify: "model, probe=None",
    ki.spectral.conv_operator_norm: "kernel, image_shape, strides=1, padding='same', "
    "iterations=5000, tolerance=0.0001",
    ki.create_model: "name, input_shape, num_classes, **overrides",
    ki.list_models: "",
    ki.with_depth: "model",
    ki.set_depth: "model, max_unroll=Ellipsis, threshold=Ellipsis",
    ki.find_not_finite: "model, images",
    ki.accuracy_by_depth: "model, dataset, max_unrolls=None, thresholds=None",
    ki.plot_accuracy_by_depth: "report, path=None",
    ki.predict_stream: "model, dataset, batch_size=64",
    ki.UnrollSchedule: "schedule",
    ki.export_litert: "model, path, classes=None, mean=None, std=None",
    ki.datasets.load: "name='digits', limit_train=None, validation_share=0.1, "
    "pixels='standardized', image_size=None, test_share=0.2",
    ki.datasets.load_folder: "path, image_size=None, validation_share=0.1, test_share=0.2, "
    "limit_train=None, pixels='standardized'",
    ki.datasets.read_picture: "path, shape",
    ki.DepthLogger: "dataset, log_dir, samples=256, frequency=1, run=None",
    ki.projections.project_dense: "R, shift",
    ki.projections.project_conv: "kernel, delta, margin, center_margin",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__name__)
def test_signature_begins_as_designed(function):
    parameters = inspect.signature(function).parameters.values()
    text = ", ".join(re.sub(r": [^=]+?( = |$)", lambda m: m[1].strip(), str(p)) for p in parameters)
    assert text.startswith(SIGNATURES[function])


def test_all_names_exist_and_are_sorted():
    assert ki.__all__ == sorted(ki.__all__)
    assert all(hasattr(ki, name) for name in ki.__all__)
