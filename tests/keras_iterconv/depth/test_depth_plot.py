"""The figure of accuracy by depth, read back from its axes."""

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

import keras_iterconv as ki


@pytest.fixture
def report(make_net, images, labels):
    return ki.accuracy_by_depth(make_net(), (images, labels), [1, 2, 4, 300, 310], [0.3, 1e-3])


def curves(axes):
    return [drawn for drawn in axes.containers if isinstance(drawn, ErrorbarContainer)]


def test_curves_hold_the_points_and_their_errors(report):
    figure = report.plot()
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    drawn = curves(axes)
    for curve, points in zip(drawn, (report.by_max_unroll, report.by_threshold), strict=True):
        line, _, (bars,) = curve.lines
        assert list(line.get_xdata()) == [p.updates for p in points]
        assert list(line.get_ydata()) == [p.accuracy for p in points]
        lengths = [np.ptp(np.array(bar, float)[:, 1]) for bar in bars.get_segments()]
        np.testing.assert_allclose(lengths, [2 * p.standard_error for p in points])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == [
        "by max_unroll (threshold 0.03)",
        "by threshold (max_unroll 12)",
        "own settings",
    ]
    ring = next(line for line in axes.lines if line.get_label() == "own settings")
    assert (*ring.get_xdata(), *ring.get_ydata()) == (report.own.updates, report.own.accuracy)


def test_every_point_is_labelled_and_those_on_top_of_each_other_share_one(report):
    (axes,) = report.plot().axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1", "2", "4", "300 to 310", "0.3", "1e-3"]


def test_the_figure_is_saved(report, tmp_path):
    figure = ki.plot_accuracy_by_depth(report, tmp_path / "figure.png")
    assert isinstance(figure, Figure)
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_a_fixed_net_has_one_curve(make_net, images, labels, tmp_path):
    report = ki.accuracy_by_depth(make_net(threshold=None), (images, labels), thresholds=[])
    figure = ki.plot_accuracy_by_depth(report, tmp_path / "figure.png")
    (axes,) = figure.axes
    assert len(curves(axes)) == 1
    assert "by max_unroll (no threshold)" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]
    assert all(tick <= 1 for tick in axes.get_yticks())


def test_drawing_leaves_matplotlib_s_settings(report):
    import matplotlib

    before = dict(matplotlib.rcParams)
    report.plot()
    assert dict(matplotlib.rcParams) == before
