"""What a report shows and keeps."""

import json

import numpy as np
import pytest

import keras_iterconv as ki


@pytest.fixture
def report(make_net, images, labels):
    return ki.accuracy_by_depth(make_net(), (images, labels), [1, 5, 12], [0.5, None])


def test_a_report_survives_json(report):
    assert ki.DepthReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_without_curves_survives_too(make_net, images, labels):
    report = ki.accuracy_by_depth(make_net(), (images, labels), [], [])
    assert report.by_max_unroll == report.by_threshold == ()
    assert ki.DepthReport.from_dict(report.to_dict()) == report
    assert "own settings" in str(report)


def test_the_table_says_every_number(report):
    lines = str(report).splitlines()
    assert lines[0].startswith("net on 40 images, at most 24 updates each")
    assert max(map(len, lines)) <= 110
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in lines if line[0] == "│"
    ]
    points = [report.own, *report.by_max_unroll, *report.by_threshold]
    assert [row[0] for row in rows] == ["own settings", "by max_unroll", "", "", "by threshold", ""]
    assert [row[2] for row in rows] == ["0.03", "0.03", "0.03", "0.03", "0.5", "fixed"]
    for row, point in zip(rows, points, strict=True):
        assert row[1] == str(point.max_unroll)
        accuracy, error = row[3].split(" ± ")
        assert float(accuracy.rstrip("%")) == pytest.approx(100 * point.accuracy, abs=0.006)
        assert float(error) == pytest.approx(100 * point.standard_error, abs=0.006)
        assert float(row[4]) == pytest.approx(point.updates, abs=0.06)
        shares = (point.share_of_fixed_depth, point.share_at_limit, point.share_not_finite)
        np.testing.assert_allclose(
            [float(cell.rstrip("%")) for cell in row[5:]], 100 * np.array(shares), atol=0.06
        )


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(None, "fixed"), ("mixed", "mixed"), (10.0, "10"), (0.01, "0.01"), (1e-4 * 0.1, "1e-5")],
)
def test_thresholds_in_words(threshold, text):
    from keras_iterconv.depth.depth_report import format_threshold

    assert format_threshold(threshold) == text
