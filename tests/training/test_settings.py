"""The settings of a run and their defaults."""

import dataclasses
import math

import pytest

import keras_iterconv as ki
from training.datasets import list_datasets
from training.errors import UserError
from training.settings import PRESETS, Settings, make_settings


def test_the_given_wins_over_the_preset_and_the_preset_over_the_default():
    settings = make_settings("nais-cifar10", epochs=3)
    assert (settings.epochs, settings.batch_size, settings.schedule) == (3, 128, "step")
    assert make_settings(model="nais10").schedule == "cosine"


def test_defaults_fit_the_data_set():
    assert make_settings(model="nais10").dataset == "digits"
    assert make_settings(model="nais10", dataset="cifar10").augment == "standard"
    assert make_settings(model="nais_mnist", dataset="mnist").epochs <= 20


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_a_model_and_a_data_set_that_exist(preset):
    settings = make_settings(preset)
    assert settings.model in ki.list_models()
    assert settings.dataset in list_datasets()


def test_n_s_settings_are_n_s():
    cifar, mnist = make_settings("nais-cifar10"), make_settings("nais-mnist")
    assert (cifar.epochs, cifar.learning_rate, cifar.schedule) == (450, 0.1, "step")
    assert (mnist.epochs, mnist.learning_rate) == (150, 0.1)


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'nais-cifar10'"):
        make_settings("nais-cifar")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 0, "--epochs must be from 1"),
        ("batch_size", 0, "--batch-size must be from 1"),
        ("seed", -1, "--seed must be from 0"),
        ("seed", 2**32, "--seed must be from 0 to 4294967295"),
        ("learning_rate", 0.0, "--learning-rate must be a positive number"),
        ("learning_rate", math.nan, "--learning-rate must be a positive number"),
        ("weight_decay", -1e-4, "--weight-decay must be 0 or more"),
        ("schedule", "cosin", "--schedule must be one of cosine"),
        ("strategy", "tpu", "--strategy must be one of none, mirrored"),
        ("augment", "mixup", "--augment must be one of none"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, said):
    with pytest.raises(UserError, match=said):
        make_settings(model="nais10", **{field: value})


def test_settings_survive_the_config_file():
    settings = make_settings(
        model="nais_adaptive", threshold=1e-3, step_size=0.5, gradient="frozen"
    )
    assert Settings(**dataclasses.asdict(settings)) == settings
    assert settings.overrides() == {"threshold": 1e-3, "step_size": 0.5, "gradient": "frozen"}


def test_a_coupling_brings_the_shared_start_with_it():
    assert make_settings(model="resnet_w8").overrides() == {}
    for coupling in (0.0, 0.9):
        settings = make_settings(model="resnet_w8", coupling=coupling)
        assert settings.overrides() == {"shared_initialization": True}
    settings = make_settings(model="resnet_w8", coupling=0.9, shared_initialization=False)
    assert settings.overrides() == {"shared_initialization": False}
    settings = make_settings(model="resnet_w8", blocks=4, lipschitz_cap=0.5)
    assert settings.overrides() == {"blocks": 4, "lipschitz_cap": 0.5}


def test_l_s_presets_are_those_of_pre_activation_nets():
    settings = make_settings("resnet-w16-cifar10", coupling=0.5)
    assert (settings.batch_size, settings.learning_rate, settings.schedule) == (
        128, 0.1, "step-twice",
    )  # fmt: skip
    assert (settings.weight_decay, settings.augment, settings.coupling) == (1e-4, "standard", 0.5)
