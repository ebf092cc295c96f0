"""Architectures by name: what they are in full size, and what goes wrong."""

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.models.registry import list_settings

NAMES = ki.list_models()


def convolution(filters, channels, taps=9):
    return filters * channels * taps


def staged_weights(block, image_channels=3, filters=(16, 32, 64), blocks=18, classes=10):
    """Count the weights of a staged net, given those of a block of c channels."""
    total, channels = 0, image_channels
    for c in filters:
        # A transition without a bias, and a normalisation: two trained and two moving numbers.
        total += convolution(c, channels) + 4 * c + blocks * block(c)
        channels = c
    return total + 4 * channels + channels * classes + classes


def dense_weights(name, pixels=28 * 28, units=128, updates=30, classes=10):
    """Count the weights of one of NAIS-Net's ResNets for MNIST."""
    parts = name.split("_")[1:]
    copies = 1 if "sh" in parts else updates
    total = copies * (units * units + units) + units * classes + classes
    total += copies * pixels * units if "na" in parts else pixels * units + units
    return total + (updates * 4 * units if "bn" in parts else 0)


def residual_weights(width, capped):
    """Count the weights of one of the nets of Lippl et al. for 32x32x3."""
    # Two kernels, and two normalisations of two trained and two moving numbers a channel.
    total = staged_weights(
        lambda c: 2 * convolution(c, c) + 8 * c, filters=(width, 2 * width, 4 * width), blocks=16
    )
    # Two images for the power iteration, and the divisor.
    for stage in range(3) if capped else ():
        total += 16 * (2 * (32 >> stage) ** 2 * (width << stage) + 1)
    return total


def normalised_convolution(c):
    """Count a kernel without a bias and a normalisation of two trained and two moving numbers."""
    return convolution(c, c) + 4 * c


def fast_weights(classes=10, widths=(64, 128, 256)):
    """Count the weights of the fast net: patches of 2x2x3, each with two filters."""
    total, channels = 12 * 24, 24
    for c in widths:
        # A transition without a bias, its normalisation, and a block of C, D, E and delta.
        total += convolution(channels, c) + 4 * c + 2 * convolution(c, c) + 2 * c
        channels = c
    return total + channels * classes + classes


def thinking_weights(channels=3, classes=10, filters=64):
    """Count the weights of the net for sequences: convolutions of three positions, no biases."""
    inner = 4 * filters * filters + filters * (filters + channels)
    return 3 * (channels * filters + inner + filters * filters // 2 + filters // 2 * classes)


# C, D, E and delta; a block of the plain ResNet has one kernel and its bias.
NAIS_BLOCK = staged_weights(lambda c: 2 * convolution(c, c) + 2 * c)
FULL_SIZE = {
    "nais1": ((32, 32, 3), NAIS_BLOCK, 54),
    "nais10": ((32, 32, 3), NAIS_BLOCK, 540),
    "nais_adaptive": ((32, 32, 3), NAIS_BLOCK, 540),
    "resnet54": ((32, 32, 3), staged_weights(normalised_convolution), 54),
    "resnet54_plain": ((32, 32, 3), staged_weights(lambda c: convolution(c, c) + c), 54),
    "resnet54_wide": (
        (32, 32, 3), staged_weights(normalised_convolution, filters=(22, 45, 90)), 54
    ),
    **{
        f"{family}_w{width}": ((32, 32, 3), residual_weights(width, family != "resnet"), 48)
        for family in ("resnet", "icr", "pcr")
        for width in (8, 16, 32, 64)
    },
    "deep_thinking": ((32, 32, 3), thinking_weights(), 1000),
    "nais_fast": ((32, 32, 3), fast_weights(), 9),
    "nais_dense": ((28, 28, 1), 128 * 128 + 784 * 128 + 128 + 1290, 30),
    "nais_mnist": ((28, 28, 1), 128 * 128 + 784 * 128 + 128 + 1290, 30),
    "resnet_sh_stable": ((28, 28, 1), 128 * 128 + 128 + 784 * 128 + 128 + 1290, 30),
    **{
        name: ((28, 28, 1), dense_weights(name), 30)
        for name in (
            "resnet", "resnet_sh", "resnet_na", "resnet_bn",
            "resnet_sh_na", "resnet_sh_bn", "resnet_na_bn", "resnet_sh_na_bn",
        )
    },
}  # fmt: skip


def test_names():
    assert sorted(FULL_SIZE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_full_size(name):
    input_shape, weights, depth = FULL_SIZE[name]
    model = ki.create_model(name, input_shape, 10)
    assert type(model) is ki.IterativeModel
    assert model.name == name
    if name == "deep_thinking":
        # Sequences of any length, with a class for each position.
        assert model.input_shape == (None, None, *input_shape[1:])
        assert model.output_shape == (None, None, 10)
    else:
        assert model.input_shape == (None, *input_shape)
        assert model.output_shape == (None, 10)
    assert model.count_params() == weights
    assert ki.processing_depth(model) == depth


def test_a_former_name_builds_the_same_net():
    nets = [ki.create_model(name, (8, 8, 1), 10, units=6) for name in ("nais_dense", "nais_mnist")]
    old, new = ([(v.path, v.shape) for v in net.variables] for net in nets)
    assert old == new
    assert list_settings("nais_dense") == list_settings("nais_mnist")


def test_the_wide_resnet_has_as_many_parameters_as_nais_net():
    nais, wide = (ki.create_model(name, (32, 32, 3), 10) for name in ("nais1", "resnet54_wide"))
    for attribute in ("weights", "trainable_weights"):
        ours, theirs = (
            sum(np.prod(w.shape) for w in getattr(model, attribute)) for model in (nais, wide)
        )
        assert theirs == pytest.approx(ours, rel=0.01)
    assert ki.processing_depth(wide) == ki.processing_depth(nais)


def test_blocks_of_the_convolutional_nets():
    settings = {
        name: {
            (b.max_unroll, b.threshold, b.step_size, b.activation, b.initial_state, b.tied)
            for b in ki.iterated_blocks(ki.create_model(name, (8, 8, 3), 10, blocks=2))
        }
        for name in ("nais1", "nais10", "nais_adaptive")
    }
    assert settings == {
        "nais1": {(1, None, 1.0, "relu", "input", True)},
        "nais10": {(10, None, 1.0, "relu", "input", True)},
        "nais_adaptive": {(10, 1e-4, 1.0, "relu", "input", True)},
    }


def test_overrides_reach_the_blocks():
    model = ki.create_model(
        "nais10", (8, 8, 3), 4, filters=(4, 6, 8, 10), blocks=2, max_unroll=3, threshold=0.1,
        step_size=0.5, activation="tanh", margin=0.02, center="fixed", tied=False, kernel_size=5,
    )  # fmt: skip
    blocks = ki.iterated_blocks(model)
    assert [b.filters for b in blocks] == [4, 4, 6, 6, 8, 8, 10, 10]
    for b in blocks:
        assert (b.max_unroll, b.threshold, b.step_size, b.activation) == (3, 0.1, 0.5, "tanh")
        assert (b.margin, b.center, b.tied, b.kernel_size) == (0.02, "fixed", False, 5)
    (block,) = ki.iterated_blocks(ki.create_model("nais_mnist", (8, 8, 1), 4, units=6, rank=2))
    assert (block.units, block.rank) == (6, 2)
    model = ki.create_model("resnet_sh_na", (8, 8, 1), 4, units=6, max_unroll=4, step_size=0.5)
    assert ki.processing_depth(model) == 4
    assert {b.step_size for b in ki.iterated_blocks(model)} == {0.5}


def test_stages_of_l_s_nets():
    settings = {
        name: [
            (s.filters, s.blocks, s.skip_from, s.lipschitz_cap, s.shared_initialization)
            for s in ki.iterated_blocks(ki.create_model(f"{name}_w32", (8, 8, 3), 10, blocks=2))
        ]
        for name in ("resnet", "icr", "pcr")
    }
    widths = (32, 64, 128)
    assert settings == {
        "resnet": [(width, 2, "previous", None, False) for width in widths],
        "icr": [(width, 2, "previous", 0.95, False) for width in widths],
        "pcr": [(width, 2, "stage_input", 0.95, False) for width in widths],
    }
    model = ki.create_model(
        "pcr_w8", (8, 8, 1), 4, width=6, blocks=3, lipschitz_cap=0.5,
        shared_initialization=True, initial_gamma=0.1,
    )  # fmt: skip
    stages = ki.iterated_blocks(model)
    assert [s.filters for s in stages] == [6, 12, 24]
    for s in stages:
        assert (s.blocks, s.lipschitz_cap, s.initial_gamma) == (3, 0.5, 0.1)
        assert s.shared_initialization
    assert ki.processing_depth(model) == 9


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("nais_10", "nais10"), ("resnet_54", "resnet54"), ("NAIS_MNIST", "nais_mnist"),
     ("resnet_sh_stabel", "resnet_sh_stable")],
)  # fmt: skip
def test_unknown_model_gets_the_nearest_name(name, nearest):
    with pytest.raises(ValueError, match=f"`name` must be one of .*Did you mean '{nearest}'"):
        ki.create_model(name, (8, 8, 1), 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["nais10"], (8, 8, 3), 10), r"`name` must .*Received: name=\['nais10'\]"),
        ((None, (8, 8, 3), 10), "`name` must .*Received: name=None"),
        (("nais10", (8, 8), 10), r"`input_shape` must .*Received: input_shape=\(8, 8\)"),
        (("nais10", (1, 8, 8, 3), 10), "`input_shape` must .*Received: input_shape="),
        (("nais10", 8, 10), "`input_shape` must .*Received: input_shape=.*8"),
        (("nais10", (None, 8, 3), 10), "`input_shape` must .*Received: input_shape=None"),
        (("nais10", (8, 8, 0), 10), "`input_shape` must .*Received: input_shape=0"),
        (("nais10", (8, 8, 3), 1), "`num_classes` must .*Received: num_classes=1"),
        (("nais10", (8, 8, 3), 10.0), "`num_classes` must .*Received: num_classes=10.0"),
        (("nais10", (8, 8, 3), True), "`num_classes` must .*Received: num_classes=True"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ki.create_model(*arguments)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("nais10", {"blocks": 0}, "`blocks` must .*Received: blocks=0"),
        ("nais10", {"filters": ()}, r"`filters` must .*Received: filters=\(\)"),
        ("nais10", {"filters": 16}, "`filters` must .*Received: filters=16"),
        ("nais10", {"filters": (4, 0)}, "`filters` must .*Received: filters=0"),
        ("nais10", {"max_unroll": 0}, "`max_unroll` must .*Received: max_unroll=0"),
        ("nais10", {"threshold": 0}, "`threshold` must .*Received: threshold=0"),
        ("nais10", {"step_size": 1.5}, "`step_size` must .*Received: step_size=1.5"),
        ("nais10", {"kernel_size": 4}, "`kernel_size` must be odd.*Received: kernel_size=4"),
        ("nais10", {"margin": 0.5}, "`margin` must .*Received: margin=0.5"),
        ("nais10", {"units": 8}, "nais10.*units.*Received: units=8"),
        ("nais_mnist", {"shift": 0.5}, "`shift` must .*Received: shift=0.5"),
        ("nais_mnist", {"blocks": 2}, "nais_mnist.*blocks.*Received: blocks=2"),
        ("nais_mnist", {"treshold": 0.1}, "treshold"),
        ("resnet54", {"batch_norm": False}, "resnet54.*batch_norm.*Received: batch_norm=False"),
        ("resnet54", {"blocks": 0}, "`blocks` must .*Received: blocks=0"),
        ("resnet54", {"threshold": 0.1}, "resnet54.*threshold.*Received: threshold=0.1"),
        ("resnet_w8", {"blocks": 0}, "`blocks` must .*Received: blocks=0"),
        ("resnet_w8", {"width": 0}, "`width` must .*Received: width=0"),
        ("icr_w8", {"lipschitz_cap": 0}, "`lipschitz_cap` must .*Received: lipschitz_cap=0"),
        ("pcr_w8", {"skip_from": "previous"}, "pcr_w8.*skip_from.*Received: skip_from"),
        ("resnet_w8", {"threshold": 0.1}, "`threshold` needs `tied=True`.*threshold=0.1"),
        ("resnet_sh", {"max_unroll": 0}, "`max_unroll` must .*Received: max_unroll=0"),
        ("resnet_sh", {"units": 0}, "`units` must .*Received: units=0"),
        ("resnet_sh", {"step_size": 0}, "`step_size` must .*Received: step_size=0"),
        ("resnet_sh", {"shared": False}, "resnet_sh.*shared.*Received: shared=False"),
        ("resnet_sh_stable", {"embedding": False}, "embedding.*Received: embedding=False"),
    ],
)  # fmt: skip
def test_bad_overrides(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        ki.create_model(name, (8, 8, 1), 10, **overrides)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 8), r"shape \(None, 8, 8, 3\), .* shape \(2, 8, 8\)"),
        ((2, 8, 8, 1), r"expected axis -1 .* value 3, but received .* shape \(2, 8, 8, 1\)"),
        ((2, 8, 8, 4), r"shape=\(None, 8, 8, 3\), found shape=\(2, 8, 8, 4\)"),
        ((2, 8, 6, 3), r"shape=\(None, 8, 8, 3\), found shape=\(2, 8, 6, 3\)"),
        ((2, 1, 8, 8, 3), r"shape=\(None, 8, 8, 3\), found shape=\(2, 1, 8, 8, 3\)"),
    ],
)
def test_wrong_images(shape, message):
    # The errors are Keras's own, and so is their wording.
    model = ki.create_model("nais10", (8, 8, 3), 10, blocks=1, filters=(4,))
    for called in (model, ki.with_depth(model)):
        with pytest.raises(ValueError, match=message):
            called(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"incompatible|expected axis"):
        model.predict(np.zeros(shape, np.float32), verbose=0)


@pytest.mark.parametrize("name", ki.list_models())
def test_nets_with_batch_normalisation_and_no_others_synchronize_it(name):
    small = {"blocks": 1, "units": 4, "max_unroll": 2}
    settings = {key: value for key, value in small.items() if key in list_settings(name)}
    plain = ki.create_model(name, (8, 8, 3), 10, **settings)
    if any("moving" in variable.path for variable in plain.non_trainable_variables):
        ki.create_model(name, (8, 8, 3), 10, synchronized=True, **settings)
        return
    message = f"`synchronized` is of batch normalisation, which '{name}' does not have: leave it"
    with pytest.raises(ValueError, match=message):
        ki.create_model(name, (8, 8, 3), 10, synchronized=True, **settings)


def test_settings_are_listed_for_the_command_line():
    assert "threshold" in list_settings("nais10")
    assert list_settings("resnet_sh_na_bn") == [
        "activation", "max_unroll", "step_size", "synchronized", "units",
    ]  # fmt: skip
    assert not {"embedding", "initial_state", "name"} & set(list_settings("resnet_sh_stable"))
