"""Bad arguments and bad inputs of every block: what the errors say, and their configurations."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki

KINDS = ("dense", "conv")
NAN = float("nan")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("max_unroll", v) for v in (0, -1, 2.0, NAN, True, "10", None, 2**31)),
        *(("threshold", v) for v in (0, 0.0, -1e-4, NAN, float("inf"), True, "1e-4")),
        *(("step_size", v) for v in (0, -0.1, 1.0001, 2, NAN, True, "0.1", None)),
        *(("activation", v) for v in ("sigmoid", "ReLU", None, 1, ["relu"])),
        *(("initial_state", v) for v in ("zero", None, np.zeros(3))),
        *(("gradient", v) for v in ("exact", None, {})),
    ],
)  # fmt: skip
def test_bad_arguments(kind, argument, value, make_block):
    with pytest.raises(ValueError, match=rf"`{argument}` must .*Received: {argument}=") as error:
        make_block(kind, **{argument: value})
    assert repr(value) in str(error.value)


def test_a_wrong_name_gets_the_nearest(kind, make_block):
    with pytest.raises(ValueError, match="Did you mean 'tanh'"):
        make_block(kind, activation="tahn")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_unroll", np.int64(3)),
        ("threshold", np.float32(0.5)),
        ("threshold", 1),
        ("step_size", np.float64(0.5)),
        ("step_size", 1),
    ],
)
def test_numbers_of_any_type(kind, argument, value, make_block):
    config = make_block(kind, **{argument: value}).get_config()
    assert config[argument] == value
    assert type(config[argument]) in (int, float)


def test_unknown_keyword(kind, make_block):
    with pytest.raises((TypeError, ValueError), match="treshold"):
        make_block(kind, treshold=1e-4)


def test_input_start_needs_as_many_channels(kind, make_block, make_inputs):
    layer = make_block(kind, initial_state="input")
    message = r'`initial_state="input"` needs .* 6.*Received: input_shape=\(3, .*5\)'
    with pytest.raises(ValueError, match=message):
        layer(make_inputs(kind, channels=5))
    with pytest.raises(ValueError, match=message.replace("3, ", "None, ")):
        make_block(kind, initial_state="input")(
            keras.Input(make_inputs(kind, channels=5).shape[1:])
        )


def test_channels_must_be_known(kind, make_block, make_inputs):
    shape = make_inputs(kind).shape
    with pytest.raises(ValueError, match=r"must have . axes, the last of a known size"):
        make_block(kind, initial_state="zeros")(keras.Input((*shape[1:-1], None)))


def test_a_built_block_refuses_other_inputs(kind, make_block, make_inputs):
    layer = make_block(kind, initial_state="zeros")
    u = make_inputs(kind, channels=3)
    layer(u)
    with pytest.raises(ValueError, match=r"incompatible with the layer.*expected axis -1"):
        layer(u[..., :2])
    with pytest.raises(ValueError, match=r"incompatible with the layer.*expected ndim"):
        layer(u[0])


CONFIGS = {
    "dense": {
        "max_unroll": 7, "threshold": 0.01, "step_size": 0.5, "activation": "tanh", "shift": 0.2,
        "rank": 3, "bound": 1.5, "initial_state": "input", "gradient": "unroll", "tied": False,
        "non_autonomous": False,
    },
    "conv": {
        "kernel_size": 5, "max_unroll": 7, "threshold": 0.01, "step_size": 0.5,
        "activation": "tanh", "margin": 0.1, "center_margin": 0.2, "center": "fixed",
        "initial_state": "zeros", "gradient": "unroll", "tied": False,
    },
}  # fmt: skip


def test_config_round_trip(kind, make_block, make_inputs):
    layer = make_block(kind, **CONFIGS[kind], name="block", dtype="mixed_bfloat16")
    config = layer.get_config()
    for argument, value in CONFIGS[kind].items():
        assert config[argument] == value == getattr(layer, argument)
    twin = type(layer).from_config(config)
    assert twin.get_config() == config
    layer.build(make_inputs(kind).shape)
    twin.build(make_inputs(kind).shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(make_inputs(kind)), layer(make_inputs(kind)))


def test_config_holds_every_argument(kind, make_block):
    import inspect

    layer = make_block(kind)
    arguments = set(inspect.signature(type(layer).__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(layer.get_config())
    assert all(hasattr(layer, argument) for argument in arguments)


def test_defaults_are_those_of_the_design():
    dense, conv = ki.NAISDense(8).get_config(), ki.NAISConv2D(8).get_config()
    expected = {
        "max_unroll": 30, "threshold": None, "step_size": 0.1, "activation": "relu",
        "shift": 0.01, "rank": None, "bound": None, "initial_state": "zeros",
        "gradient": "unroll", "tied": True,
    }  # fmt: skip
    assert {key: dense[key] for key in expected} == expected
    expected = {
        "kernel_size": 3, "max_unroll": 10, "threshold": None, "step_size": 1.0,
        "activation": "relu", "margin": 0.01, "center_margin": 0.05, "center": "trainable",
        "initial_state": "input", "gradient": "unroll", "tied": True,
    }  # fmt: skip
    assert {key: conv[key] for key in expected} == expected


def test_registered_under_the_package(kind, make_block):
    name = keras.saving.get_registered_name(type(make_block(kind)))
    assert name.startswith("keras_iterconv>")


def test_update_checks_its_arguments(kind, make_block, make_inputs):
    layer, u = make_block(kind, max_unroll=3), make_inputs(kind)
    state = layer(u)
    with pytest.raises(ValueError, match=r"must have \d axes"):
        layer.update(state, u[..., None])
    with pytest.raises(ValueError, match=r"`inputs` must have .* channels"):
        layer.update(state, u[..., :-1])
    with pytest.raises(ValueError, match="`state` must have the shape"):
        layer.update(state[..., :-1], u)
    with pytest.raises(ValueError, match="`k` must be from 0 to 2"):
        layer.update(state, u, k=3)
    with pytest.raises(ValueError, match=r"must have . axes"):
        make_block(kind).build((*u.shape, 4))


def test_integer_images_are_accepted(kind, make_block, make_inputs):
    layer = make_block(kind)
    u = np.arange(make_inputs(kind).size).reshape(make_inputs(kind).shape) % 7
    np.testing.assert_array_equal(layer(u.astype(np.uint8)), layer(u.astype(np.float32)))
