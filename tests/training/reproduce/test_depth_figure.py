"""The figure of depth: groups, what is measured, what is drawn, and the command."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.depth import figure_by_class
from keras_iterconv.zoo import index as zoo_index
from training.reproduce import __main__ as reproduce
from training.reproduce import depth_table

IMAGES = 90


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def make_net(**settings):
    keras.utils.set_random_seed(3)
    return ki.create_model("nais_mnist", (8, 8, 1), 10, units=16, **settings)


@pytest.fixture
def net():
    return make_net(threshold=1.0, max_unroll=25, step_size=0.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [1, 3, 20, 1000])
def test_groups_cut_all_pictures_by_depth(seed, spread):
    depth = np.random.default_rng(seed).integers(5, 5 + spread, 200)
    groups = figure_by_class.group_by_depth(depth, 8)
    assert 1 <= len(groups) <= 8
    np.testing.assert_array_equal(np.sum([g.members for g in groups], axis=0), 1)
    for group in groups:
        assert {group.least, group.most} == {depth[group.members].min(), depth[group.members].max()}
    # One after another: pictures of equal depth are never apart.
    assert all(a.most < b.least for a, b in itertools.pairwise(groups))
    if spread == 1000:
        assert len(groups) == 8
        assert max(g.members.sum() for g in groups) <= 1.3 * 200 / 8


def test_it_measures_each_picture_by_itself(net, digits):
    found = figure_by_class.measure_depths(net, "net", digits, IMAGES)
    view, total, right = ki.with_depth(net), [], []
    for image, label in zip(digits.test.images[:IMAGES], digits.test.labels, strict=False):
        answer = view((image[None].astype(np.float32) - digits.mean) / digits.std)
        logits = np.float64(answer["logits"][0])
        odds = np.exp(logits - logits.max())
        np.testing.assert_allclose(found.confidence[len(total)], 1 / odds.sum(), rtol=1e-4)
        total.append(int(np.sum(answer["depth"])))
        right.append(logits.argmax() == label)
    np.testing.assert_array_equal(found.depth, total)
    np.testing.assert_array_equal(found.right, right)
    assert found.limit == 25
    assert (found.pictures.min(), found.pictures.max()) == (0, 1)
    assert len(np.unique(found.depth)) > 3


def test_one_depth_for_all_is_refused(digits):
    with pytest.raises(ValueError, match="each image takes 30 updates in net: give --threshold"):
        figure_by_class.measure_depths(make_net(), "net", digits, IMAGES)


def test_a_residual_net_is_refused(digits):
    net = ki.create_model("resnet_w8", (8, 8, 1), 10, blocks=1)
    with pytest.raises(ValueError, match="takes 3 updates in net: a residual net has one depth"):
        figure_by_class.measure_depths(net, "net", digits, IMAGES)


def test_several_classes_a_picture_are_refused(net, digits):
    several = dataclasses.replace(digits.test, labels=np.eye(10)[digits.test.labels])
    data = dataclasses.replace(digits, test=several)
    with pytest.raises(ValueError, match="several labels"):
        figure_by_class.measure_depths(net, "net", data, IMAGES)


def test_the_table_says_accuracy_and_confidence_by_depth(capsys):
    depths = figure_by_class.Depths(
        "net",
        ("a", "b"),
        np.zeros((6, 2, 2, 1)),
        np.array([0, 1, 0, 1, 0, 1]),
        np.array([2, 2, 2, 2, 7, 7]),
        10,
        np.array([True, True, False, True, False, False]),
        np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
    )
    depth_table.print_depths(Console(width=80), depths)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells == [
        ["2", "4", "75.00%", "75.00%"],
        ["7", "2", "0.00%", "45.00%"],
        ["2-7", "6", "50.00%", "65.00%"],
    ]


def test_the_figure_shows_each_class_from_shallow_to_deep(net, digits, tmp_path):
    depths = figure_by_class.measure_depths(net, "net", digits, IMAGES)
    figure = figure_by_class.draw_depths(tmp_path / "depth.png", depths)
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    everything, by_class, accuracy, confidence, *cells = figure.get_axes()
    assert sum(bar.get_height() for bar in everything.patches) == IMAGES
    assert [t.get_text() for t in by_class.get_yticklabels()] == list("0123456789")
    assert len(cells) == 10 * figure_by_class.PICTURE_GROUPS
    groups = figure_by_class.group_by_depth(depths.depth, figure_by_class.DEPTH_GROUPS)
    (line,) = confidence.lines
    for x, y, group in zip(*line.get_data(), groups, strict=True):
        assert x == depths.depth[group.members].mean()
        np.testing.assert_allclose(y, np.median(depths.confidence[group.members]), rtol=1e-6)
    shares = accuracy.lines[0].get_ydata()
    np.testing.assert_allclose(shares, [depths.right[g.members].mean() for g in groups])
    for label in range(10):
        row = cells[label * figure_by_class.PICTURE_GROUPS :][: figure_by_class.PICTURE_GROUPS]
        own = depths.depth[depths.labels == label]
        bounds = [int(n) for axes in row for n in axes.get_title().split("-") if n]
        assert bounds == sorted(bounds)
        assert (bounds[0], bounds[-1]) == (own.min(), own.max())
        # The first picture of the row is one of this class, of the least depth's group.
        first = row[0].images[0].get_array()[:8, :8, 0]
        limit = int(row[0].get_title().split("-")[-1])
        candidates = depths.pictures[(depths.labels == label) & (depths.depth <= limit), ..., 0]
        assert any(np.array_equal(first, picture) for picture in candidates)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command line with a zoo of one small net."""
    index = {"models": {"net": {"dataset": "digits"}}}
    monkeypatch.setattr(zoo_index, "find_zoo", lambda zoo: tmp_path)
    monkeypatch.setattr(zoo_index, "read_index", lambda folder: index)
    monkeypatch.setattr(ki, "load_pretrained", lambda name, zoo: make_net())

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["reproduce", "depth-figure", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            reproduce.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def test_the_command_draws_a_net_at_another_threshold(command, tmp_path):
    path = tmp_path / "depth.png"
    code, out, _ = command("net", "--output", path, "--threshold", 0.3, "--images", 40)
    assert code == 0
    assert "net, 40 test images" in out
    assert path.is_file()


def test_the_command_takes_pixels_as_the_net_was_trained_with_them(command, monkeypatch, tmp_path):
    entry = {"dataset": "digits", "mean": [0.0], "std": [16.0]}
    monkeypatch.setattr(zoo_index, "read_index", lambda folder: {"models": {"net": entry}})
    drawn = []

    def draw(path, depths):
        path.touch()
        drawn.append(depths)

    monkeypatch.setattr(figure_by_class, "draw_depths", draw)
    code, _, error = command(
        "net", "--output", tmp_path / "d.png", "--threshold", 0.1, "--images", 40
    )
    assert (code, error) == (0, "")
    net = make_net(threshold=0.1)
    pictures = datasets.load("digits").test.images[:40].astype(np.float32) / 16
    expected = ki.with_depth(net).predict(pictures, verbose=0)["depth"].sum(axis=1)
    np.testing.assert_array_equal(drawn[0].depth, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net",), "each image takes 30 updates in net: give --threshold"),
        (("net", "--threshold", -1), "--threshold must"),
        (("net", "--threshold", 1, "--max-unroll", 0), "--max-unroll must"),
        (("net", "--images", 1), "--images must be at least 2: 1"),
        (("net", "--output", "a.jpg"), "--output must end in .png, .pdf, .svg"),
        (("net", "--output", "nowhere/a.png"), "a file in a folder that exists"),
        ((), "Missing argument 'name'"),
    ],
)
def test_what_the_command_cannot_do_is_said_in_one_line(
    command, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, _, error = command(*arguments)
    assert code == 2
    assert error.startswith("Error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
