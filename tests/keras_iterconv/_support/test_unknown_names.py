"""Messages about wrong names."""

import pytest

from keras_iterconv._support.checks import unknown_name


@pytest.mark.parametrize("name", ["nais1O", "NAIS10", "nais-10"])
def test_nearest_name(name):
    message = unknown_name("name", name, ["resnet54", "nais10"])
    assert message == (
        f"`name` must be one of nais10, resnet54. Did you mean 'nais10'? Received: name={name!r}"
    )


@pytest.mark.parametrize("name", ["", "xyz", 3, None])
def test_nothing_near(name):
    message = unknown_name("size", name, ["large"])
    assert message == f"`size` must be one of large. Received: size={name!r}"
