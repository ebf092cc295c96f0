"""What a report prints and returns."""

import dataclasses
import json

import pytest

from keras_iterconv.certificates import StabilityReport
from keras_iterconv.layers.rules.rows import ConvRow, DenseRow, FreeRow, ResidualRow

CONV = ConvRow(
    name="stage1_block1", kind="NAISConv2D", norm="infinity", factor=0.987654, holds=True,
    guarantee="it settles", reference="NAIS-Net, Theorems 1 and 3",
    taps=0.912345, delta=0.0512, excess=-0.02, within_bound=True,
)  # fmt: skip
DENSE = DenseRow(
    name="block", kind="NAISDense", norm="P = -A", factor=0.999, holds=True, guarantee="one point",
    reference="NAIS-Net, Theorems 1 and 2", eigenvalue_min=-0.98765, eigenvalue_max=-0.01,
    spectral_radius=0.999, step_times_norm=0.0988, within_bound=True,
)  # fmt: skip
RESIDUAL = ResidualRow(
    name="stage1[0]", kind="ResidualStage", norm="2", factor=1.9, holds=False, guarantee="point",
    reference="Banach", reason="f passes its cap", norm1=2.0, norm2=1.5, bound=3.0, divisor=2.0,
    capped_bound=1.5, cap=0.95, cap_holds=False, skip_from="stage_input",
)  # fmt: skip
FREE = FreeRow(name="update1", kind="ResidualUpdate", holds=False, reason="free", step_size=0.1)


def report(*rows, **settings):
    settings = {"bound": 123.456, "bound_reason": None, "largest_ratio": 0.5, **settings}
    return StabilityReport(name="net", blocks=list(rows), norm="2", **settings)


def test_it_holds_where_every_row_does():
    assert report(CONV, DENSE).holds
    assert not report(CONV, FREE).holds
    assert not report(RESIDUAL).holds


def test_dictionary_is_json():
    found = report(CONV, DENSE, RESIDUAL, FREE).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["bound"], found["largest_ratio"], found["holds"]) == (123.456, 0.5, False)
    assert found["blocks"][0]["taps"] == 0.912345
    assert found["blocks"][2]["cap_holds"] is False
    row = dataclasses.replace(CONV, factor=float("nan"))
    found = report(row, largest_ratio=float("nan"), bound=None, bound_reason="why").to_dict()
    assert found["blocks"][0]["factor"] is found["largest_ratio"] is found["bound"] is None
    json.dumps(found, allow_nan=False)


def test_a_net_of_54_blocks_is_legible():
    rows = [
        dataclasses.replace(CONV, name=f"stage{s}_block{b}", factor=0.9 + s / 100 + b / 3000)
        for s in (1, 2, 3)
        for b in range(1, 19)
    ]
    text = str(report(*rows))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    # A line each, and what they share said once.
    assert len(lines) < 54 + 10
    assert text.count("it settles (NAIS-Net, Theorems 1 and 3)") == 1
    for row in rows:
        (line,) = (line for line in lines if f" {row.name} " in line)
        assert f"{row.factor:.4g}" in line
        assert "holds [1]" in line
    assert "54 of 54" in text
    assert "Lipschitz bound 123.5; largest ratio found 0.5 (2-norm)" in text


def test_equal_neighbours_share_a_row():
    free = [dataclasses.replace(FREE, name=f"update{k}") for k in range(1, 31)]
    text = str(report(*free, DENSE))
    assert "update1 to update30 (30)" in text
    assert "update15" not in text
    assert "none [1]" in text
    assert "[1] free" in text
    assert "holds [2]" in text


def test_what_is_broken_is_said():
    text = str(report(RESIDUAL, dataclasses.replace(CONV, excess=0.25, within_bound=False)))
    assert "L 3, c 2: 1.5 > 0.95" in text
    assert "broken [1] [2]" in text
    assert "[2] f passes its cap" in text
    assert "past by 0.25" in text


@pytest.mark.parametrize("reason", ["'block' stops each sample by a threshold: " + 20 * "word "])
def test_without_a_bound_the_reason_stands_in_its_place(reason):
    text = str(report(DENSE, bound=None, bound_reason=reason, largest_ratio=None))
    assert "No Lipschitz bound: 'block' stops" in text
    assert "largest ratio found none" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 110
    assert "A in [-0.988, -0.01], h|P| 0.0988 < 2" in text
