"""SavedModels, run without this package, against the Keras models that they come from."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.saved_model import write_saved_model
from tests.support.comparisons import assert_same_predictions

CHAIN = {"filters": (4, 8), "blocks": 1}
NETS = {
    "adaptive": ("nais_adaptive", {**CHAIN, "threshold": 0.05}),
    "untied": ("nais10", {**CHAIN, "tied": False, "max_unroll": 3}),
    "dense_adaptive": ("nais_mnist", {"units": 24, "threshold": 0.5}),
    "pcr": ("pcr_w8", {"blocks": 2}),
}
BATCHES = (1, 3, 7)
DEPTHS = ((0.5, 4), (1e-6, 2), (1e6, 3))

# Runs in a process of its own, in a folder that is no checkout.
SERVE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras_iterconv", "export", "iterconv"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
import tensorflow as tf

for path in sys.argv[1:]:
    model = tf.saved_model.load(path)
    found = dict(np.load(path + "/given.npz"))
    answers = {}
    for key, images in found.items():
        if not key.startswith("images"):
            continue
        plain = model.signatures["serving_default"](image=tf.constant(images))
        answers |= {f"{key}/plain/{name}": value for name, value in plain.items()}
        if "with_depth" in model.signatures:
            for number, (threshold, most) in enumerate(found["depths"]):
                deep = model.signatures["with_depth"](
                    image=tf.constant(images),
                    threshold=tf.constant(threshold, tf.float32),
                    max_unroll=tf.constant(int(most), tf.int32),
                )
                answers |= {f"{key}/{number}/{name}": value for name, value in deep.items()}
    np.savez(path + "/answers.npz", signatures=sorted(model.signatures), **answers)
print(sorted(n for n in sys.modules if n.split(".")[0] in ("keras_iterconv", "iterconv")))
"""


@pytest.fixture(scope="module")
def served(make_model, draw_raw, preprocessing, tmp_path_factory):
    """Return, by kind, the model, its folder, and what another process got from the folder."""
    folder, models = tmp_path_factory.mktemp("saved"), {}
    for kind, (name, settings) in NETS.items():
        models[kind] = make_model(name, **settings)
        write_saved_model(fold(models[kind]), folder / kind, preprocessing)
        images = {f"images{batch}": draw_raw(batch) for batch in BATCHES}
        spoilt = draw_raw(3)
        spoilt[1, 2, 2] = np.nan
        np.savez(folder / kind / "given.npz", depths=DEPTHS, imagesNaN=spoilt, **images)
    done = subprocess.run(
        [sys.executable, "-c", SERVE, *(str(folder / kind) for kind in NETS)],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
    return {
        kind: (model, folder / kind, dict(np.load(folder / kind / "answers.npz")))
        for kind, model in models.items()
    }


KINDS = ("threshold", "max_unroll")


def assert_equal(answers, prefix, expected):
    found = {
        name: answers[f"{prefix}/{name}"] for name in ("logits", "probabilities", "depth", "status")
    }
    assert_same_predictions(found, expected)
    assert found["depth"].dtype == found["status"].dtype == np.int32


@pytest.mark.parametrize("kind", NETS)
def test_another_process_answers_as_keras(served, draw_raw, kind):
    model, _, answers = served[kind]
    for batch in BATCHES:
        expected = ki.with_depth(model)((draw_raw(batch) - 3) / 2)
        assert_equal(answers, f"images{batch}/plain", expected)
    adaptive = "adaptive" in kind
    assert list(answers["signatures"]) == ["serving_default"] + ["with_depth"] * adaptive
    if adaptive:
        assert len(np.unique(answers["images7/plain/depth"].sum(axis=1))) > 2


@pytest.mark.parametrize("kind", ["adaptive", "dense_adaptive"])
def test_the_other_signature_takes_a_depth(served, draw_raw, kind):
    model, _, answers = served[kind]
    own = ki.iterated_blocks(model)[0]
    own = {"threshold": own.threshold, "max_unroll": own.max_unroll}
    for number, (threshold, max_unroll) in enumerate(DEPTHS):
        ki.set_depth(model, threshold=threshold, max_unroll=max_unroll)
        try:
            for batch in BATCHES:
                expected = ki.with_depth(model)((draw_raw(batch) - 3) / 2)
                assert_equal(answers, f"images{batch}/{number}", expected)
        finally:
            ki.set_depth(model, **own)


@pytest.mark.parametrize("kind", NETS)
def test_an_image_that_is_not_finite_stays_alone(served, draw_raw, kind):
    _, _, answers = served[kind]
    status = answers["imagesNaN/plain/status"]
    assert (status[1] == 2).all()
    for name in ("logits", "depth", "status"):
        np.testing.assert_allclose(
            answers[f"imagesNaN/plain/{name}"][[0, 2]],
            answers[f"images3/plain/{name}"][[0, 2]],
            rtol=1e-4,
        )


@pytest.mark.parametrize("kind", NETS)
def test_each_weight_is_written_once(served, kind):
    model, folder, _ = served[kind]
    size = (folder / "variables" / "variables.data-00000-of-00001").stat().st_size
    weights = sum(weight.numpy().nbytes for weight in fold(model).weights)
    assert weights <= size < weights + 10_000


@pytest.fixture(scope="module")
def serve_still(make_model, preprocessing, tmp_path_factory):
    """Return the signature with depth of a net whose only block never changes its state."""
    model = make_model("nais_mnist", units=3, threshold=0.5)
    for weight in ki.iterated_blocks(model)[0].weights:
        weight.assign(np.zeros(weight.shape))
    folder = tmp_path_factory.mktemp("still")
    write_saved_model(model, folder, preprocessing)
    return tf.saved_model.load(folder).signatures["with_depth"]


@pytest.mark.parametrize(("threshold", "updates"), [(1e-39, 1), (1e-45, 1), (0, 5)])
def test_a_state_that_stands_still_is_settled_at_every_positive_threshold(
    serve_still, draw_raw, threshold, updates
):
    found = serve_still(
        image=tf.constant(draw_raw(3)),
        threshold=tf.constant(threshold, tf.float32),
        max_unroll=tf.constant(5),
    )
    np.testing.assert_array_equal(found["depth"], [[updates]] * 3)
    np.testing.assert_array_equal(found["status"], [[updates == 5]] * 3)


def test_depths_that_differ_have_an_input_each(make_model, preprocessing, tmp_path):
    model = make_model("nais_adaptive", filters=(4,), blocks=2)
    first, _ = ki.block_calls(model)
    first.block.threshold = 0.5
    write_saved_model(model, tmp_path / "net", preprocessing)
    run = tf.saved_model.load(tmp_path / "net").signatures["with_depth"]
    names = {f"{kind}_{call.path}" for call in ki.block_calls(model) for kind in KINDS}
    assert set(run.structured_input_signature[1]) == {"image", *names}
