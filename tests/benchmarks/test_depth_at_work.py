"""The moving picture of the README: right answers at the end, and one frame for each update."""

import numpy as np
from PIL import Image
from typer.testing import CliRunner

import keras_iterconv as ki
from benchmarks import depth_at_work as module


def test_answers_are_parities_and_stop_where_the_net_does():
    model = ki.load_pretrained("deep_thinking_prefix_sums")
    found = module.answer(model, 9, np.random.default_rng(1))
    raw, _ = module.draw_prefix_sums(1, 9, np.random.default_rng(1))
    parity = np.cumsum(raw.ravel() > 0) % 2
    np.testing.assert_array_equal(found.labels, parity)
    np.testing.assert_array_equal(found.found[-1], parity)
    assert found.found.shape == (found.depth, 9)
    image = model.preprocessing(raw.astype(np.float32))
    assert ki.with_depth(model)(image)["depth"].numpy().tolist() == [[found.depth]]


def test_a_frame_for_each_update(tmp_path):
    file = tmp_path / "moving.gif"
    result = CliRunner().invoke(module.app, ["--lengths", "3,40", "--output", str(file)])
    assert result.exit_code == 0, result.output
    rng = np.random.default_rng(2026)
    model = ki.load_pretrained("deep_thinking_prefix_sums")
    depths = [module.answer(model, bits, rng).depth for bits in (3, 40)]
    with Image.open(file) as image:
        assert image.n_frames == max(depths)
        # The colour of wrong answers is there at first, and not at the end.
        wrong = tuple(int(module.COLORS[module.WRONG][i : i + 2], 16) for i in (1, 3, 5))
        shares = []
        for frame in (0, image.n_frames - 1):
            image.seek(frame)
            pixels = np.asarray(image.convert("RGB"), int)[60:]
            shares.append((abs(pixels - wrong).sum(axis=-1) < 20).mean())
    assert shares[0] > 0.001
    assert shares[1] == 0
