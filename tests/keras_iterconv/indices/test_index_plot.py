"""The figure of indices, read back from its axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_iterconv as ki
from keras_iterconv.indices.index_report import StageErrors, make_report

INDICES = ("convergence", "recurrence", "divergence")
FIELDS = ("early_readout", "left_out", "repeated")


def make(stages=2, seed=0, blocks=5, chance=0.9, worst=0.5):
    rng = np.random.default_rng(seed)
    full = rng.uniform(size=200) < 0.1
    wrong = []
    for _ in range(stages):
        curves = [
            rng.uniform(size=(n, 200)) < rng.uniform(0.15, worst, (n, 1))
            for n in (blocks, blocks, 16)
        ]
        curves[0][-1] = full
        wrong.append(StageErrors(*curves))
    return make_report([f"stage{s}" for s in range(stages)], wrong, chance, 10, 0)


def panels(figure):
    """Return the axes of the three rows."""
    return [row.axes for row in figure.subfigs]


def data(line):
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def curves(axes):
    """Return the lines of an axes but for the horizontal ones of chance."""
    return [line for line in axes.lines if line.get_linestyle() != ":"]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_first_row_holds_the_error_curves(stages):
    report = make(stages)
    figure = report.plot()
    assert isinstance(figure, Figure)
    row = panels(figure)[0]
    assert len(row) == 3 * stages
    for c, field in enumerate(FIELDS):
        for s in range(stages):
            axes = row[c * stages + s]
            (line,) = curves(axes)
            x, y = data(line)
            expected = getattr(report.errors[s], field)
            np.testing.assert_array_equal(x, np.arange(1, len(expected) + 1))
            np.testing.assert_array_equal(y, expected)
            assert axes.get_title() == f"stage{s}"
            (dotted,) = (line for line in axes.lines if line.get_linestyle() == ":")
            np.testing.assert_allclose(dotted.get_ydata(), 0.9)
            low, high = axes.get_ylim()
            assert low <= 0
            assert high >= 1


def test_the_second_row_holds_the_indices_and_their_mean():
    report = make(3)
    for axes, index in zip(panels(report.plot())[1], INDICES, strict=True):
        values = getattr(report, index)
        drawn = [data(line)[1] for line in axes.lines]
        assert any(np.array_equal(y, values) for y in drawn)
        assert any(y.shape == (1,) and y[0] == pytest.approx(values.mean()) for y in drawn)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["stage0", "stage1", "stage2", "mean"]
        assert index in axes.get_ylabel()


def test_the_third_row_holds_error_against_indices():
    reports = [make(2, seed) for seed in range(3)]
    figure = ki.plot_indices(reports, ["a", "b", "a"])
    row = panels(figure)[2]
    for axes, index in zip(row[:2], ("convergence", "divergence"), strict=True):
        assert index in axes.get_xlabel()
        drawn = {line.get_label(): data(line) for line in axes.lines}
        assert set(drawn) == {"a", "b"}
        for label, chosen in (("a", [0, 2]), ("b", [1])):
            x, y = drawn[label]
            means = [getattr(reports[i], index).mean() for i in chosen]
            np.testing.assert_allclose(x, means)
            np.testing.assert_allclose(y, [reports[i].error for i in chosen])
    legend = row[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_conditions_have_one_colour_each():
    reports = [make(1, seed) for seed in range(4)]
    row = panels(ki.plot_indices(reports, ["a", "b", "a", "c"]))[0]
    colors = [line.get_color() for line in curves(row[0])]
    assert colors[0] == colors[2]
    assert len(set(colors)) == 3


def test_many_conditions_have_a_colour_each():
    reports = [make(1, seed) for seed in range(9)]
    row = panels(ki.plot_indices(reports, [str(i) for i in range(9)]))[0]
    assert len({tuple(np.atleast_1d(line.get_color())) for line in curves(row[0])}) == 9


def test_undefined_indices_can_be_drawn(tmp_path):
    report = make(2, chance=0.1)
    assert np.isnan(report.convergence).all()
    figure = report.plot()
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_drawing_leaves_matplotlib_s_settings():
    import matplotlib

    before = dict(matplotlib.rcParams)
    make(1).plot()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("reports", "labels", "message"),
    [
        ([], None, r"`reports` must hold at least one report.*Received: 0 reports"),
        ([make(1)], [], "`labels` one for each. Received: 1 reports, 0 labels"),
        ([make(1)], ["a", "b"], "Received: 1 reports, 2 labels"),
        ([make(1), make(2)], None, "`reports` must be of nets with equal numbers of stages"),
    ],
)
def test_bad_arguments(reports, labels, message):
    with pytest.raises(ValueError, match=message):
        ki.plot_indices(reports, labels)
