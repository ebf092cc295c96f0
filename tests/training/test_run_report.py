"""What a run says of its net."""

import io

import pytest
from rich.console import Console

import keras_iterconv as ki
from training.run_folder import RunFolder
from training.run_report import describe_depth, print_result


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("resnet_w8", {"blocks": 4}, "12 updates in 3 stages of 4 blocks"),
        ("nais1", {"blocks": 1, "filters": (4,)}, "1 update in 1 block"),
        ("nais10", {"blocks": 1, "filters": (4, 4)}, "20 updates in 2 blocks"),
        (
            "nais_adaptive",
            {"blocks": 2, "filters": (4,)},
            "20 updates in 2 blocks at most; stopping threshold 0.0001",
        ),
    ],
)
def test_the_depth_of_a_net_in_words(name, settings, said):
    assert describe_depth(ki.create_model(name, (8, 8, 1), 10, **settings)) == said


@pytest.mark.parametrize(
    ("adaptive", "share", "warned"),
    [(True, 0.51, True), (True, 0.5, False), (True, 0.0, False), (False, 1.0, False)],
)
def test_a_depth_that_hardly_depends_on_the_image_is_warned_of(adaptive, share, warned, tmp_path):
    accuracies = dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), 0.9)
    result = {
        **accuracies,
        "model": "nais_adaptive",
        "dataset": "digits",
        "generalization_gap": 0.0,
        "mean_depth": 9.0,
        "processing_depth": 20,
        "adaptive": adaptive,
        "min_depth": 2,
        "max_depth": 20,
        "share_at_limit": share,
        "share_not_finite": 0.0,
        "images_per_second": 100.0,
        "seconds": 1.0,
    }
    console = Console(file=io.StringIO(), width=100)
    print_result(console, result, None, RunFolder(tmp_path))
    said = " ".join(console.file.getvalue().split())
    assert (
        "In 51% of the cases an image made all updates of a block without converging" in said
    ) == warned
    assert ("Raise --max-unroll or --threshold" in said) == warned
