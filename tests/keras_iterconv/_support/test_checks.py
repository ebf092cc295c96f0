"""Checks of arguments."""

from fractions import Fraction

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv._support.checks import check_between, check_positive_int
from keras_iterconv.layers.normalization import BatchNormalization
from keras_iterconv.models.nais_net import nais_dense_net, nais_net
from keras_iterconv.models.resnet import residual_net, resnet54, resnet_dense


@pytest.mark.parametrize("value", [1, 7, 2**31 - 1, np.int8(3), np.uint64(3), np.array(3)])
def test_integers(value):
    checked = check_positive_int("size", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**31, 1.0, np.float32(2), True, np.True_, "3", None, float("nan"), [3],
     np.array([3]), np.array([3, 4])],
)  # fmt: skip
def test_what_is_no_integer_of_that_range(value):
    with pytest.raises(ValueError, match=r"`size` must be .*Received: size=") as error:
        check_positive_int("size", value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0.5, np.float16(0.5), np.float32(0.5), Fraction(1, 2)])
def test_numbers(value):
    checked = check_between("share", value, 0, 1)
    assert checked == 0.5
    assert type(checked) is float


@pytest.mark.parametrize(
    "value", [0, 1, -0.1, 1.1, float("nan"), float("inf"), True, np.True_, "0.5", None, 0.5j, [0.5]]
)
def test_what_is_no_number_of_that_range(value):
    with pytest.raises(
        ValueError, match=r"`share` must lie in \(0, 1\)\. Received: share="
    ) as error:
        check_between("share", value, 0, 1)
    assert repr(value) in str(error.value)


def test_a_closed_end():
    assert check_between("share", 1, 0, 1, closed=True) == 1.0
    for value in (0, 1.0000001, True):
        with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\]\. Received: share="):
            check_between("share", value, 0, 1, closed=True)


IMAGE_LAYERS = {
    "nais_conv2d": lambda: ki.NAISConv2D(4),
    "residual_block": lambda: ki.ResidualBlock(4),
    "residual_stage": lambda: ki.ResidualStage(4, 2),
    "batch_normalization": BatchNormalization,
}


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("layer", IMAGE_LAYERS)
def test_layers_of_images_refuse_channels_first(layer, channels_first):
    with pytest.raises(ValueError, match=r"set_image_data_format.*Received: image_data_format="):
        IMAGE_LAYERS[layer]()


@pytest.mark.parametrize("name", ki.list_models())
def test_named_nets_refuse_channels_first(name, channels_first):
    with pytest.raises(ValueError, match=r"set_image_data_format.*Received: image_data_format="):
        ki.create_model(name, (8, 8, 1), 10)


@pytest.mark.parametrize(
    "build",
    [nais_net, nais_dense_net, residual_net, resnet54, resnet_dense],
    ids=lambda build: build.__name__,
)
def test_builders_refuse_channels_first(build, channels_first):
    with pytest.raises(ValueError, match=r"set_image_data_format.*Received: image_data_format="):
        build((8, 8, 1), 10)


def test_saved_nets_are_refused_too(channels_first, tmp_path):
    keras.config.set_image_data_format("channels_last")
    inputs = keras.Input((6, 6, 2))
    keras.Model(inputs, ki.NAISConv2D(2)(inputs)).save(tmp_path / "net.keras")
    keras.config.set_image_data_format("channels_first")
    # Keras wraps the exceptions of layers that it loads.
    with pytest.raises(TypeError, match="set_image_data_format"):
        keras.models.load_model(tmp_path / "net.keras")
    with pytest.raises(ValueError, match="set_image_data_format"):
        ki.load_pretrained("nais_mnist")
