"""The experiment on the depth of images: what is measured, its nulls, and its verdicts."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.depth.figure_by_class import Depths
from training.reproduce import image_characteristics, permutations, published_nets
from training.reproduce.experiment import Case, Results, Row
from training.reproduce.experiments import depth_of_images
from training.reproduce.experiments.depth_of_images import CLASSES, DEPTH_OF_IMAGES, describe
from training.settings import make_settings

FRAME = 4
OTHERS = ("cat", "deer")


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(permutations, "DRAWS", 200)


def test_a_correlation_within_classes_is_the_mean_of_theirs(few_draws):
    rng = np.random.default_rng(0)
    strata = np.repeat([3, 1], [60, 20])[rng.permutation(80)]
    first = rng.normal(size=80)
    second = np.round(first + rng.normal(size=80), 1) + 100 * strata
    found = permutations.rank_correlation(first, second, strata)
    by_class = [stats.spearmanr(first[strata == s], second[strata == s])[0] for s in (3, 1)]
    assert found.value == pytest.approx(np.average(by_class, weights=[60, 20]))
    assert found.p == pytest.approx(1 / 201)
    assert found.low < 0 < found.high < found.value


def test_what_only_the_classes_have_in_common_is_no_relation(few_draws):
    rng = np.random.default_rng(1)
    strata = np.repeat([0, 1], 200)
    first, second = rng.normal(size=(2, 400)) + 10 * strata
    assert stats.spearmanr(first, second).statistic > 0.7
    found = permutations.rank_correlation(first, second, strata)
    assert abs(found.value) < 0.1
    assert found.p > 0.05


def test_p_values_without_a_relation_are_uniform(few_draws):
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], 10)
    found = np.array(
        [
            (permutations.rank_correlation(x, y, labels).p, permutations.class_effect(x, labels).p)
            for x, y in rng.normal(size=(40, 2, 30))
        ]
    )
    np.testing.assert_array_less(0.01, stats.kstest(found, "uniform").pvalue)


def test_the_effect_of_the_class_is_that_of_an_analysis_of_variance(few_draws):
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 2, 5], [10, 20, 30])
    measure = rng.normal(size=60) + labels
    found = permutations.class_effect(measure, labels)
    groups = [measure[labels == label] for label in (0, 2, 5)]
    # Kruskal and Wallis's H is N - 1 times the share of the variance of the ranks.
    assert found.value == pytest.approx(stats.kruskal(*groups).statistic / 59)
    assert found.p < 0.05


def test_a_constant_measure_has_no_relation(few_draws):
    labels = np.array([0, 0, 1, 1])
    assert permutations.rank_correlation(labels, np.arange(4), labels) is None
    assert permutations.class_effect(np.ones(4), labels) is None


def picture(background, foreground=None, side=0):
    """Return an image of 32x32 pixels of a background, with a square in its middle."""
    image = np.broadcast_to(background, (32, 32, 3)).astype(np.float32).copy()
    begin = 16 - side // 2
    if side:
        image[begin : begin + side, begin : begin + side] = foreground
    return image


def test_blueness_is_that_of_the_mean_colour():
    found = image_characteristics.blueness(
        np.stack(
            [picture([0, 0, 1]), picture(0.5), picture([1, 0.5, 0]), picture(1, [0, 0, 1], 16)]
        )
    )
    np.testing.assert_allclose(found, [1, 0, -0.75, 0.25])


def test_the_texture_is_that_of_the_frame():
    stripes = np.broadcast_to(np.arange(32)[:, None] % 2, (32, 32))[..., None]
    plain = picture(0.2, np.random.default_rng(0).random((20, 20, 3)), 20)
    found = image_characteristics.background_texture(np.stack([picture(stripes), plain]))
    # Of the pairs in the frame those above each other differ, those beside each other do not.
    pairs = 2 * FRAME * 31 + 24 * 2 * (FRAME - 1)
    np.testing.assert_allclose(found, [pairs / (2 * pairs), 0])


def test_the_size_is_the_share_of_the_inner_part_that_differs_from_the_frame():
    rng = np.random.default_rng(0)
    images = np.stack([picture(0.3, 0.9, side) for side in (0, 4, 12)])
    noisy = images + rng.normal(scale=0.01, size=images.shape)
    found = image_characteristics.object_size(noisy)
    assert found[0] == pytest.approx(0.1, abs=0.06)
    inner = (32 - 2 * FRAME) ** 2
    np.testing.assert_allclose(
        image_characteristics.object_size(images), [0, 16 / inner, 144 / inner]
    )
    assert np.all(np.diff(found) > 0)


def made_up(sign=1, strength=1.0, images=80):
    """Return the depths of images that depend on what they show, as the paper says at `sign` 1."""
    rng = np.random.default_rng(0)
    classes = (*CLASSES, *OTHERS)
    labels = np.repeat(np.arange(len(classes)), images)[rng.permutation(images * len(classes))]
    pictures, value = [], rng.random(len(labels))
    for label, x in zip(labels, value, strict=True):
        name = classes[label]
        if name in ("airplane", "ship"):
            pictures.append(picture([0.5 - x / 2, 0.5 - x / 2, 0.5 + x / 2]))
        elif name == "frog":
            pictures.append(picture(x * (np.arange(32)[:, None] % 2)[..., None]))
        else:
            pictures.append(picture(0.2, 0.9, 2 + 2 * int(10 * (1 - x))))
    noise = rng.random(len(labels))
    depth = 200 - np.round(40 * sign * (strength * value + (1 - strength) * noise)) + 10 * labels
    right = strength * value + (1 - strength) * noise > 0.3
    return Depths(
        "net", classes, np.stack(pictures), labels, depth.astype(int), 540, right, 0.1 + 0.9 * value
    )


@pytest.mark.parametrize(
    ("depths", "outcomes"),
    [
        (made_up(), ["agrees"] * 7),
        (made_up(sign=-1), ["agrees", "agrees", *["differs"] * 5]),
        (made_up(sign=0), ["agrees", "agrees", *["not decidable at this scale"] * 5]),
    ],
    ids=["as the paper", "the other way", "class only"],
)
def test_the_verdicts(few_draws, depths, outcomes):
    found = Results([Row("net", 0, describe(depths, CLASSES))])
    assert [claim.judge(found).outcome.value for claim in DEPTH_OF_IMAGES.claims] == outcomes


@pytest.mark.parametrize(
    ("value", "half", "p", "outcome"),
    [
        (-0.15, 0.06, 0.001, "agrees"),
        (-0.09, 0.06, 0.001, "not decidable at this scale"),
        (-0.15, 0.2, 0.1, "not decidable at this scale"),
        (-0.03, 0.06, 0.3, "differs"),
        (0.15, 0.06, 0.001, "differs"),
        (0.05, 0.2, 0.5, "not decidable at this scale"),
    ],
)
def test_a_weak_relation_differs_only_where_chance_is_small(value, half, p, outcome):
    relation = {"value": value, "low": -half, "high": half, "p": p}
    measures = {"relations": {"texture": {"frog": relation}}}
    found = DEPTH_OF_IMAGES.claims[2].judge(Results([Row("net", 0, measures)]))
    assert found.outcome.value == outcome


def test_one_net_that_differs_decides(few_draws):
    rows = [Row("net", s, describe(made_up(sign), CLASSES)) for s, sign in enumerate((1, -1))]
    assert DEPTH_OF_IMAGES.claims[2].judge(Results(rows)).outcome.value == "differs"


def test_a_net_of_the_zoo_is_measured_and_drawn(few_draws, tmp_path, monkeypatch):
    """The zoo's own net on digits, whose images have no colour."""
    monkeypatch.setattr(depth_of_images, "CLASSES", ("3", "8"))
    monkeypatch.setattr(depth_of_images, "IMAGES", 60)
    monkeypatch.setattr(depth_of_images, "PUBLISHED", ("nais_mnist_adaptive", "not published"))
    model = ki.create_model("nais_dense", (8, 8, 1), 10, units=8, max_unroll=20, threshold=0.5)
    digits = datasets.load("digits")
    monkeypatch.setattr(published_nets, "load_published", lambda name: (model, digits))
    monkeypatch.setattr(depth_of_images, "THRESHOLD", 0.2)

    ((name, settings),) = DEPTH_OF_IMAGES.conditions("cpu").items()
    assert (name, settings["published"], len(settings["sha256"])) == (name, name, 64)
    case = Case(name, settings, 0)
    measures = DEPTH_OF_IMAGES.compute(case, tmp_path, Console(file=io.StringIO()))

    images = (digits.test.images[:60].astype("float32") - digits.mean) / digits.std
    assert ki.iterated_blocks(model)[0].threshold == 0.2
    depth = np.asarray(ki.with_depth(model)(images)["depth"])[:, 0]
    labels = digits.test.labels[:60]
    assert measures["depths"] == {c: depth[labels == int(c)].tolist() for c in ("3", "8")}
    assert measures["updates"] == pytest.approx(depth.mean())
    assert measures["relations"]["blueness"] == {"3": None, "8": None}
    assert set(measures["relations"]["confidence"]) == {"value", "low", "high", "p"}
    shown = ((("size", "3"), 1), (("blueness", "3"), 1), (("right",), -1))
    monkeypatch.setattr(depth_of_images, "CORRELATIONS", shown)
    DEPTH_OF_IMAGES.draw(tmp_path / "depth.png", Results([Row(name, 0, measures)]))
    with Image.open(tmp_path / "depth.png") as image:
        assert image.size == (1200, 840)


def test_the_paper_s_net_is_trained():
    ((_, settings),) = DEPTH_OF_IMAGES.conditions("paper").items()
    run = make_settings(**settings)
    assert (run.model, run.dataset, run.epochs) == ("nais_adaptive", "cifar10", 450)
    assert dataclasses.asdict(run)["threshold"] is None
