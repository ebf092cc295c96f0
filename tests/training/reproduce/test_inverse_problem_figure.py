"""The figure of the toy inverse problem: what it shows, and that it can be read."""

import itertools

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from training.reproduce import inverse_problem_figure as picture
from training.reproduce.inverse_problem import PICTURED_Z, Measurements, Readouts

T = 8


@pytest.fixture(scope="module", params=[0.01, 1.0, 300.0])
def experiment(request):
    """Return made-up measurements, with errors of several sizes."""
    rng = np.random.default_rng(2)
    paths, errors = {}, {}
    for kind in picture.NAMES:
        shapes = ((T + 1, 2, 2), (T, T, 2, 2), (17, 2, 2))
        paths[kind] = Readouts(*(rng.uniform(-1.5, 1.5, shape) for shape in shapes))
        seeds = 1 if kind == "algorithm" else 3
        shapes = ((seeds, T + 1), (seeds, T, T), (seeds, 17))
        errors[kind] = Readouts(*(request.param * rng.uniform(0.5, 1, shape) for shape in shapes))
    return Measurements(np.array(PICTURED_Z), paths, errors, 0.76)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return where the figure goes."""
    return tmp_path_factory.mktemp("figure") / "figure.png"


@pytest.fixture(scope="module")
def figure(experiment, written):
    """Return the drawn figure."""
    return picture.draw_figure(written, experiment)


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title("left") == title)


def test_the_picture_is_written(figure, written):
    pixels = imread(written)[..., :3]
    assert pixels.shape == (1080, 1440, 3)
    # Cut off at the border, a picture would have ink there.
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert np.all(edge == 1)


def test_no_words_overlap_or_leave_the_picture(figure):
    figure.canvas.draw()
    boxes = []
    for axes in figure.axes:
        words = [child for child in axes.get_children() if isinstance(child, Text)]
        if axes.axison:
            words += [axes.xaxis.label, axes.yaxis.label]
        for word in filter(Text.get_text, words):
            # An annotation's own extent would take in its arrow.
            frame = word.get_bbox_patch()
            extent = frame.get_window_extent() if frame else Text.get_window_extent(word)
            boxes.append((word.get_text(), extent))
    assert len(boxes) > 35
    for text, box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


@pytest.mark.parametrize("kind", picture.NAMES)
def test_each_net_has_its_paths_and_the_right_answers(figure, experiment, kind):
    axes = panel(figure, picture.NAMES[kind])
    lines = [line.get_xydata() for line in axes.lines]
    for sample in range(2):
        path = experiment.paths[kind].early[:, sample]
        assert any(np.array_equal(line, path) for line in lines)
        assert np.abs(path).max() < axes.get_xlim()[1]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_color() for line in crosses] == ["black"]
    np.testing.assert_array_equal(crosses[0].get_xydata(), PICTURED_Z)


def test_the_disturbed_paths_are_those_of_the_residual_nets(figure, experiment):
    out = [line.get_xydata() for line in panel(figure, "block 4 left out").lines]
    extra = [line.get_xydata() for line in panel(figure, "last block repeated").lines]
    for kind in ("resnet", "recurrent"):
        paths = experiment.paths[kind]
        for lines, path in (
            (out, paths.left_out[3, :, 0]),
            (out, paths.early[:, 0]),
            (extra, paths.early[:, 0]),
            (extra, paths.repeated[:, 0]),
        ):
            assert any(np.array_equal(line, path) for line in lines)


@pytest.mark.parametrize(
    ("label", "steps", "part"),
    [
        ("block left out", range(1, T + 1), lambda errors: errors.left_out[:, :, -1]),
        ("extra applications", range(17), lambda errors: errors.repeated),
    ],
)
def test_error_curves_are_means_over_the_seeds_with_their_range(
    figure, experiment, label, steps, part
):
    axes = next(axes for axes in figure.axes if axes.get_xlabel() == label)
    for k, kind in enumerate(picture.NAMES):
        errors = part(experiment.errors[kind])
        line = axes.lines[k]
        assert line.get_color() == picture.COLOURS[kind]
        np.testing.assert_array_equal(line.get_xdata(), steps)
        np.testing.assert_allclose(line.get_ydata(), errors.mean(axis=0))
        corners = axes.collections[k].get_paths()[0].vertices[:, 1]
        assert corners.min() == pytest.approx(errors.min())
        assert corners.max() == pytest.approx(errors.max())
    named = {text.get_text(): text.get_color() for text in axes.texts if text.get_text()}
    assert named == {
        "constant 0": "0.4",
        **{name: picture.COLOURS[kind] for kind, name in picture.NAMES.items()},
    }


@pytest.mark.parametrize("heights", [[0.5] * 5, [0, 0.01, 0.5, 0.99, 1.0], [0.95] * 3, [0.1, 0.9]])
def test_heights_are_spread(heights):
    spread = picture.spread_heights(heights, 0.1)
    assert np.all(np.diff(spread) > 0.1 - 1e-9)
    assert max(spread) <= 1
    assert min(spread) >= 0


def test_heights_that_are_apart_stay():
    assert picture.spread_heights([0.1, 0.3, 0.9], 0.1) == [0.1, 0.3, 0.9]
