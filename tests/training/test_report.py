"""What a run says of its net."""

import pytest

import keras_iterconv as ki
from training.report import describe_depth


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("resnet_w8", {"blocks": 4}, "12 updates in 3 stages of 4 blocks"),
        ("nais1", {"blocks": 1, "filters": (4,)}, "1 update in 1 block"),
        ("nais10", {"blocks": 1, "filters": (4, 4)}, "20 updates in 2 blocks"),
        (
            "nais_adaptive",
            {"blocks": 2, "filters": (4,)},
            "20 updates in 2 blocks at most, until an update is below 0.0001",
        ),
    ],
)
def test_the_depth_of_a_net_in_words(name, settings, said):
    assert describe_depth(ki.create_model(name, (8, 8, 1), 10, **settings)) == said
