"""Checkpoints that do not fit: of what a name stood for in an earlier version, or with code."""

import keras
import pytest

import keras_iterconv as ki
from iterconv.command_errors import UserError
from training.checkpoint import load_checkpoint, save_checkpoint
from training.run_folder import RunFolder


def make(name, **settings):
    small = {"filters": (2,), "blocks": 1} if "54" in name else {"units": 3, "max_unroll": 2}
    model = ki.create_model(name, (4, 4, 1), 3, **small, **settings)
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize(
    ("saved", "loaded", "layer"),
    [
        (("resnet_sh", {"step_size": 0.1}), ("resnet_sh", {}), "update1"),
        (("resnet_sh_stable", {"step_size": 0.1}), ("resnet_sh_stable", {}), "block"),
        (("resnet54_plain", {}), ("resnet54", {}), "stage1_block1_norm"),
    ],
)
def test_another_net_is_refused(folder, saved, loaded, layer):
    save_checkpoint(make(saved[0], **saved[1]), folder, folder.last, epochs=1)
    with pytest.raises(UserError, match=rf"holds another model .*'{layer}' differs.*new run"):
        load_checkpoint(make(loaded[0], **loaded[1]), folder)


@pytest.mark.parametrize("name", ["resnet_sh", "resnet_sh_na", "resnet54"])
def test_the_same_net_is_loaded(folder, name):
    model, twin = make(name), make(name)
    save_checkpoint(model, folder, folder.last, epochs=5)
    assert load_checkpoint(twin, folder) == 5
    for weight, expected in zip(twin.get_weights(), model.get_weights(), strict=True):
        assert (weight == expected).all()


def test_a_checkpoint_with_code_in_it_is_refused(folder, monkeypatch):
    inputs = keras.Input((4, 4, 1))
    evil = ki.IterativeModel(inputs, keras.layers.Lambda(keras.ops.relu)(inputs))
    evil.compile("sgd", "mse")
    save_checkpoint(evil, folder, folder.last, epochs=1)
    monkeypatch.setattr("keras.Model.load_weights", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=r"^[^ ]*last\.keras is not loaded: it holds `Lambda`"):
        load_checkpoint(make("resnet_sh"), folder)
