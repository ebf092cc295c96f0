"""The settings of a run and their defaults."""

import dataclasses
import math

import numpy as np
import pytest

import keras_iterconv as ki
from iterconv.command_errors import UserError
from keras_iterconv.datasets import list_datasets
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


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_states_all_that_decides_a_training(preset):
    stated = {"clip_norm", "validation_share", "pixels", "augment", "weight_decay", "batch_size"}
    assert stated | {"epochs", "learning_rate", "schedule"} <= set(PRESETS[preset])
    own_validation = PRESETS[preset]["dataset"].startswith("digitclutter")
    assert make_settings(preset).validation_share == (0.1 if own_validation else 0)


def test_settings_of_nais_net_are_those_of_the_paper():
    cifar = make_settings("nais-cifar10")
    assert (cifar.epochs, cifar.learning_rate, cifar.schedule) == (450, 0.1, "step")


@pytest.mark.parametrize("preset", ["nais-mnist", "resnet-sh-mnist", "resnet-sh-bn-mnist"])
def test_mnist_of_nais_net_is_not_standardised_and_clipped_only_where_it_must_be(preset):
    mnist = make_settings(preset)
    assert (mnist.epochs, mnist.learning_rate, mnist.schedule) == (150, 0.1, "constant")
    assert (mnist.pixels, mnist.clip_norm) == ("unit", 5 if preset == "resnet-sh-mnist" else 0)


def test_settings_of_the_first_release_mean_what_they_meant():
    """`nais_mnist_adaptive` of the zoo, as its `config.json` has them."""
    released = {
        "model": "nais_mnist", "dataset": "mnist", "epochs": 20, "batch_size": 128,
        "learning_rate": 0.02, "schedule": "cosine", "weight_decay": 0.1, "augment": "none",
        "mixed_precision": False, "strategy": "none", "seed": 0, "max_unroll": 60,
        "threshold": 2.0, "step_size": 1.0, "gradient": None, "blocks": None,
        "lipschitz_cap": None, "coupling": None, "shared_initialization": None,
        "limit_train": None,
    }  # fmt: skip
    settings = Settings(**released)
    assert (settings.clip_norm, settings.validation_share, settings.pixels) == (
        5.0, 0.1, "standardized",
    )  # fmt: skip


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
        ("weight_decay", -1e-4, "--weight-decay must be at least 0"),
        ("clip_norm", -1.0, "--clip-norm must be at least 0"),
        ("clip_norm", math.inf, "--clip-norm must be at least 0"),
        (
            "learning_rate",
            1e-50,
            "--learning-rate must be from 1.18e-38 to 3.4e.38, or it becomes 0",
        ),
        ("learning_rate", 1e39, "--learning-rate must be from 1.18e-38"),
        ("weight_decay", 1e-50, "--weight-decay must be from 1.18e-38"),
        ("clip_norm", 1e-50, "--clip-norm must be from 1.18e-38 to 8.51e.37"),
        ("clip_norm", 1e300, "--clip-norm must be from 1.18e-38 to 8.51e.37"),
        ("coupling", 2.0, "--coupling must be from 0 to 1"),
        ("coupling", math.nan, "--coupling must be from 0 to 1"),
        ("validation_share", 1.0, "--validation-share must be at least 0 and below 1"),
        ("validation_share", -0.1, "--validation-share must be at least 0 and below 1"),
        ("validation_share", math.nan, "--validation-share must be at least 0 and below 1"),
        ("pixels", "raw", "--pixels must be one of standardized, unit"),
        ("schedule", "cosin", "--schedule must be one of cosine"),
        ("strategy", "tpu", "--strategy must be one of none, mirrored"),
        ("augment", "mixup", "--augment must be one of none"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, said):
    with pytest.raises(UserError, match=said):
        make_settings(model="nais10", **{field: value})


def test_an_option_of_other_models_is_refused_with_those_that_the_model_has():
    settings = make_settings(model="nais_dense", blocks=4)
    with pytest.raises(
        UserError,
        match=r"--blocks is not an option of nais_dense, which takes --max-unroll, "
        r"--unroll-schedule, --threshold, --accuracy-loss, --mean-updates, --step-size, "
        r"--activation, --gradient, --settling$",
    ):
        settings.overrides()
    settings = make_settings(model="nais_dense", synchronized=True)
    with pytest.raises(UserError, match="--synchronized is of batch normalisation, which nais_d"):
        settings.overrides()


def test_settings_survive_the_config_file():
    settings = make_settings(
        model="nais_adaptive", threshold=1e-3, step_size=0.5, gradient="unroll", settling=0.1
    )
    assert Settings(**dataclasses.asdict(settings)) == settings
    assert settings.overrides() == {
        "threshold": 1e-3, "step_size": 0.5, "gradient": "unroll", "settling": 0.1,
    }  # fmt: skip


def test_a_coupling_brings_the_shared_start_with_it():
    assert make_settings(model="resnet_w8").overrides() == {}
    for coupling in (0.0, 0.9):
        settings = make_settings(model="resnet_w8", coupling=coupling)
        assert settings.overrides() == {"shared_initialization": True}
    settings = make_settings(model="resnet_w8", coupling=0.9, shared_initialization=False)
    assert settings.overrides() == {"shared_initialization": False}
    settings = make_settings(model="resnet_w8", blocks=4, lipschitz_cap=0.5)
    assert settings.overrides() == {"blocks": 4, "lipschitz_cap": 0.5}


def test_presets_of_lippl_et_al_are_those_of_pre_activation_nets():
    settings = make_settings("resnet-w16-cifar10", coupling=0.5)
    assert (settings.batch_size, settings.learning_rate, settings.schedule) == (
        128, 0.1, "step-twice",
    )  # fmt: skip
    assert (settings.augment, settings.clip_norm, settings.coupling) == ("standard", 0, 0.5)


@pytest.mark.parametrize(
    ("kernel", "members", "first_row"),
    [
        ("uniform", None, [0.625, 0.125, 0.125, 0.125]),
        # 1, 3/4, 1/2 and 1/4, over their sum of 5/2; half of it is added to half of the identity.
        ("triangular", None, [0.7, 0.15, 0.1, 0.05]),
        ("uniform", "1:", [1, 0, 0, 0]),
        ("uniform", "-4:2", [0.75, 0.25, 0, 0]),
    ],
)
def test_the_coupling_of_a_run(kernel, members, first_row):
    settings = make_settings(
        model="resnet_w8", coupling=0.5, coupling_kernel=kernel, coupling_members=members
    )
    np.testing.assert_allclose(settings.gradient_coupling().matrix(4)[0], first_row)


def test_a_run_without_coupling_has_none():
    assert make_settings(model="resnet_w8").gradient_coupling() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coupling_kernel": "triangular"}, "need --coupling"),
        ({"coupling_members": "5:"}, "need --coupling"),
        ({"index_images": -1}, "--index-images must be at least 0"),
        ({"coupling": 0.5, "coupling_kernel": "gaussian"}, "uniform, triangular: gaussian"),
        ({"coupling": 0.5, "coupling_members": "5"}, "must be FIRST:LAST"),
        ({"coupling": 0.5, "coupling_members": "a:b"}, "must be FIRST:LAST"),
        ({"coupling": 0.5, "coupling_members": "1:2:3"}, "must be FIRST:LAST"),
    ],
)
def test_settings_of_stages_that_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        make_settings(model="resnet_w8", **given)


def test_width_and_scale_of_a_residual_net_are_settings():
    settings = make_settings(model="resnet_w8", width=4, initial_gamma=0.1)
    assert settings.overrides() == {"width": 4, "initial_gamma": 0.1}
    with pytest.raises(UserError, match="--width is not an option of nais10"):
        make_settings(model="nais10", width=4).overrides()


def test_a_schedule_of_updates_is_a_setting_and_the_net_has_its_last_number():
    settings = make_settings(model="nais10", epochs=20, unroll_schedule="0:1,12:3,15:10")
    assert settings.overrides() == {"max_unroll": 10}
    assert settings.make_unroll_schedule().schedule == {0: 1, 12: 3, 15: 10}
    assert make_settings(model="nais10").make_unroll_schedule() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unroll_schedule": "1:3"}, "`unroll_schedule` must begin with epoch 0"),
        ({"unroll_schedule": "0:1,5:3,5:4"}, "must name each epoch once"),
        ({"unroll_schedule": "0:1,5:3,4:4"}, "in rising order"),
        ({"unroll_schedule": "0:0"}, "`max_unroll` must be an integer of at least 1"),
        ({"unroll_schedule": "0:1,20:3"}, "must only name epochs below --epochs, 20"),
        ({"unroll_schedule": "0:1;5:3"}, "must be EPOCH:UPDATES,..., for example"),
        ({"unroll_schedule": "0:-1"}, "must be EPOCH:UPDATES"),
        ({"unroll_schedule": ""}, "must be EPOCH:UPDATES"),
        ({"unroll_schedule": "0:1", "max_unroll": 3}, "exclude each other"),
    ],
)
def test_schedules_of_updates_that_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        make_settings(model="nais10", epochs=20, **given)


@pytest.mark.parametrize("model", ["resnet_w8", "resnet_sh", "resnet54"])
def test_a_schedule_of_updates_needs_blocks_that_can_change_theirs(model):
    with pytest.raises(UserError, match=f"--unroll-schedule is not an option of {model}"):
        make_settings(model=model, epochs=20, unroll_schedule="0:1").overrides()


def test_a_budget_is_a_setting():
    assert make_settings(model="nais_dense").budget() == {}
    settings = make_settings(model="nais_dense", mean_updates=4.5)
    assert settings.budget() == {"mean_updates": 4.5}
    assert "mean_updates" not in settings.overrides()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"accuracy_loss": 0.1, "mean_updates": 3}, "`accuracy_loss` or `mean_updates` must be"),
        ({"accuracy_loss": 1.5}, r"`accuracy_loss` must lie in \[0, 1\)"),
        ({"mean_updates": -1}, "`mean_updates` must be a positive number"),
        (
            {"accuracy_loss": 0.1, "validation_share": 0},
            "--accuracy-loss needs validation images: give a --validation-share above 0",
        ),
        ({"model": "resnet_w8", "mean_updates": 3}, "--mean-updates is not an option of resnet_w8"),
    ],
)
def test_budgets_that_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        make_settings(**{"model": "nais_dense", **given}).overrides()
