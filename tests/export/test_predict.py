"""The command line that classifies pictures: its answers, its table, its errors."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import predict


@pytest.fixture
def command(capsys, monkeypatch):
    """Return a function that runs `main`, on a terminal of some columns.

    It returns the exit code, what went to the screen, and what went to the error stream.
    """

    def run(*arguments, columns=400):
        monkeypatch.setenv("COLUMNS", str(columns))
        code = predict.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("batch", [64, 3])
def test_json_says_what_numpy_says(command, adaptive_net, photos, expected, monkeypatch, batch):
    monkeypatch.setattr(predict, "BATCH", batch)
    files, pixels = photos
    code, screen, error = command(
        adaptive_net, *files, "--json", "--top", 3, "--threshold", 0.5, "--max-unroll", 9
    )
    assert (code, error) == (0, "")
    images = pixels[..., None] * (16 / 255)
    _, probabilities, depth, status = expected(images, True, threshold=0.5, max_unroll=9)
    answers = json.loads(screen)
    assert [answer["file"] for answer in answers] == list(map(str, files))
    for k, answer in enumerate(answers):
        order = sorted(range(4), key=lambda c: -probabilities[k, c])[:3]
        names = [("night", "dusk", "noon", "snow")[c] for c in order]
        assert [row["class"] for row in answer["top"]] == names
        found = [row["probability"] for row in answer["top"]]
        np.testing.assert_allclose(found, probabilities[k, order], rtol=1e-5)
        assert answer["depth"] == depth[k].tolist()
        assert answer["status"] == [("converged", "max_unroll")[code] for code in status[k]]
        assert answer["resized_from"] is None


def test_a_row_of_the_table_for_each_picture(command, adaptive_net, photos, expected):
    files, pixels = photos
    code, screen, error = command(adaptive_net, *files)
    assert (code, error) == (0, "")
    title, _, head, *rows, _, mean = screen.splitlines()
    assert title == (
        "nais_small on skies: each of 2 blocks until its update is below 1, at most 20 times"
    )
    assert head.split() == ["file", "class", "prob.", "updates", "next", "note"]
    _, probabilities, depth, status = expected(pixels[..., None] * (16 / 255), True)
    names = np.array(["night", "dusk", "noon", "snow"])
    for k, (row, file) in enumerate(zip(rows, files, strict=True)):
        order = np.argsort(-probabilities[k])
        others = ", ".join(f"{names[c]} ({probabilities[k, c]:.1%})" for c in order[1:])
        cells = [str(file), names[order[0]], f"{probabilities[k, order[0]]:.1%}"]
        cells += [f"{depth[k].sum()} of 40", others]
        cells += ["1 of 2 blocks not converged"] * (1 in status[k])
        assert row.split() == " ".join(cells).split()
    assert mean == f"mean of 7 images: {depth.sum(axis=1).mean():.1f} of 40 updates"


def test_given_limits_are_in_the_table(command, adaptive_net, photos):
    _, screen, _ = command(
        adaptive_net, photos[0][6], "--threshold", 0.25, "--max-unroll", 3, "--top", 1
    )
    title, _, head, row = screen.splitlines()
    assert title.endswith("until its update is below 0.25, at most 3 times")
    assert head.split() == ["file", "class", "prob.", "updates", "note"]
    assert row.endswith("6 of 6  2 of 2 blocks not converged")


def test_a_net_of_fixed_depth(command, fixed_net, save, expected):
    pixels = np.random.default_rng(5).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    path = save(pixels)
    code, screen, error = command(fixed_net, path, "--top", 99)
    assert (code, error) == (0, "")
    title, _, head, row = screen.splitlines()
    assert title == "resnet_small on skies"
    assert head.split() == ["file", "class", "prob.", "updates", "next"]
    assert row.split()[3] == "40"
    (answer,) = json.loads(command(fixed_net, path, "--top", 99, "--json")[1])
    found = {row["class"]: row["probability"] for row in answer["top"]}
    right = expected(pixels[None], False)[1][0]
    np.testing.assert_allclose([found[c] for c in ("red", "green", "blue")], right, rtol=1e-5)


def test_what_is_not_as_it_should_be_is_noted(command, adaptive_net, fixed_net, save):
    path = save(np.zeros((30, 50), np.uint8))
    for net, crop in ((adaptive_net, "45x30 at 2,0"), (fixed_net, None)):
        _, screen, _ = command(net, path)
        assert screen.splitlines()[3].split()[1] == "none"
        said = f"read {crop} of 50x30" if crop else "resized from 50x30"
        assert f"no finite prediction, 2 of 2 blocks not finite, {said}" in screen
    _, screen, _ = command(adaptive_net, path, "--json")
    assert json.loads(screen) == [
        {
            "file": str(path),
            "top": [],
            "depth": [1, 1],
            "status": ["not_finite"] * 2,
            "resized_from": {"width": 50, "height": 30},
            "crop": {"left": 2, "top": 0, "right": 47, "bottom": 30},
            "inverted": False,
            "contrast": True,
        }
    ]


@pytest.fixture
def digit_net(build_net, tmp_path):
    """Return the path of a net of 4x6 pictures that says how its pictures are prepared."""
    net = build_net(True)
    said = net.metadata_props.add()
    said.key, said.value = (
        "preparation",
        '{"box": [2, 4], "stretch": 1, "centre": "box", "cells": 1}',
    )
    onnx.save(net, tmp_path / "digits.onnx")
    return tmp_path / "digits.onnx"


def test_a_net_of_digits_says_what_it_read(command, digit_net, save):
    pixels = np.full((30, 50), 255, np.uint8)
    pixels[4:8, 7:15] = 20
    mark, blank = save(pixels), save(np.full((30, 50), 255, np.uint8), "blank.png")
    _, screen, _ = command(digit_net, mark, blank)
    first, second = screen.splitlines()[3:5]
    assert first.endswith("inverted, read 8x4 at 7,4 of 50x30")
    assert second.split()[1] == "none"
    assert "no contrast" in second
    first, second = json.loads(command(digit_net, mark, blank, "--json")[1])
    assert first["crop"] == {"left": 7, "top": 4, "right": 15, "bottom": 8}
    assert (first["inverted"], first["contrast"], len(first["top"])) == (True, True, 4)
    assert (second["crop"], second["contrast"], second["top"]) == (None, False, [])
    # As light ink the ground is white, on which there is nothing lighter.
    (answer,) = json.loads(command(digit_net, mark, "--invert", "no", "--json")[1])
    assert (answer["inverted"], answer["contrast"]) == (False, False)


@pytest.mark.parametrize("columns", [73, 80, 87, 100])
@pytest.mark.parametrize("folder", ["f", "long" * 20])
def test_the_table_fits_the_terminal(command, adaptive_net, photos, monkeypatch, columns, folder):
    monkeypatch.chdir(photos[0][0].parent)
    Path(folder).mkdir()
    files = [path.rename(Path(folder) / path.name) for path in photos[0]]
    wide, narrow = (command(adaptive_net, folder, columns=c)[1] for c in (400, columns))
    assert max(map(len, narrow.splitlines()[2:])) <= columns < max(map(len, wide.splitlines()[2:]))
    for file in files:
        assert str(file) in wide
        assert str(file)[-19:] in narrow
    # Nothing but paths is shortened, and the head of the notes goes.
    words = [sorted(w for w in screen.split() if "sky" not in w) for screen in (wide, narrow)]
    words[0].remove("note")
    assert words[0] == words[1]
    # A note starts below the class, and a class keeps its probability.
    lines = narrow.splitlines()
    for line in lines:
        assert not line.lstrip().startswith("(")
        if "not converged" in line:
            assert line.index("1 of 2 blocks not converged") == lines[2].index("class")


def test_a_terminal_of_few_columns(command, adaptive_net, photos):
    code, screen, _ = command(adaptive_net, *photos[0], columns=7)
    assert code == 0
    assert screen.count("/sky") == 7


def test_bad_pictures_leave_the_others(command, adaptive_net, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    good = photos[0][2]
    arguments = (tmp_path / "bad.png", tmp_path / "gone.png", good, tmp_path / "folder")
    for options in ((), ("--json",)):
        code, screen, error = command(adaptive_net, *arguments, *options)
        assert code == 2
        assert screen.count("sky2.png") == 1
        assert "bad.png" not in screen
        lines = error.splitlines()
        assert len(lines) == 3
        assert all(line.startswith(f"Error: {tmp_path}/") for line in lines)
        for said in ("bad.png is empty", "gone.png does not exist", "folder holds no pictures"):
            assert said in error
    assert len(json.loads(screen)) == 1


def test_no_good_picture(command, adaptive_net, tmp_path):
    code, screen, error = command(adaptive_net, tmp_path / "gone.png")
    assert (code, screen, error.count("\n")) == (2, "", 1)
    code, screen, _ = command(adaptive_net, tmp_path / "gone.png", "--json")
    assert (code, json.loads(screen)) == (2, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (),
            "the following arguments are required: MODEL, IMAGE; see iterconv predict --help",
        ),
        (("net",), "the following arguments are required: IMAGE"),
        (("gone.onnx", "picture"), "gone.onnx cannot be opened: No such file"),
        (("picture", "picture"), "is not an ONNX model"),
        (("net", "picture", "--top", 0), "--top must be an integer of at least 1: 0"),
        (("net", "picture", "--top", "few"), "argument --top: invalid int value: 'few'"),
        (("net", "picture", "--threshold", -1), "--threshold must be a number of at least 0"),
        (("net", "picture", "--threshold", "nan"), "Received: --threshold nan"),
        (("net", "picture", "--threshold", "low"), "argument --threshold: invalid float"),
        (("net", "picture", "--max-unroll", 0), "--max-unroll must be an integer from 1"),
        (("net", "picture", "--max-unroll", "2.5"), "argument --max-unroll: invalid int"),
        (("net", "picture", "--max", 3), "unrecognized arguments: --max 3"),
        (("fixed", "picture", "--max-unroll", 3), "--max-unroll must be left out"),
        (("net", "picture", "--invert", "yes"), "--invert must be auto:"),
        (("net", "picture", "--invert", "maybe"), "argument --invert: invalid choice: 'maybe'"),
        (("fifo", "picture"), "fifo is a pipe or a device: expected an ONNX file"),
        (("/dev/zero", "picture"), "/dev/zero is a pipe or a device"),
    ],
)
def test_bad_usage_is_one_line(command, adaptive_net, fixed_net, photos, arguments, said, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    named = {"net": adaptive_net, "fixed": fixed_net, "picture": photos[0][0]}
    named["fifo"] = tmp_path / "fifo"
    code, screen, error = command(*(named.get(a, a) for a in arguments))
    assert (code, screen) == (2, "")
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert said in error


def test_options_may_stand_between_pictures(command, adaptive_net, photos):
    first, second, *_ = photos[0]
    code, screen, _ = command("--top", 1, adaptive_net, first, "--json", second)
    assert (code, [len(answer["top"]) for answer in json.loads(screen)]) == (0, [1, 1])


def test_a_net_that_no_picture_fits(command, build_net, photos, tmp_path):
    net = build_net(True)
    net.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    net.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2
    onnx.save(net, tmp_path / "net.onnx")
    code, screen, error = command(tmp_path / "net.onnx", *photos[0])
    assert (code, screen, error.count("\n")) == (2, "", 1)
    assert "1 channel (grey) or 3 (RGB)" in error


def test_names_cannot_spoil_the_table(command, adaptive_net, photos, tmp_path):
    name = os.fsdecode(b"a\nb\x1b[2J\xff.png")
    path = photos[0][0].rename(tmp_path / name)
    _, screen, _ = command(adaptive_net, path)
    assert "a?b?[2J?.png" in screen
    assert json.loads(command(adaptive_net, path, "--json")[1])[0]["file"] == str(path)
    path.write_bytes(b"")
    _, _, error = command(adaptive_net, path)
    assert (error.count("\n"), "\x1b" in error) == (1, False)


def test_ctrl_c_is_one_line(command, adaptive_net, photos, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "read_picture", interrupt)
    assert command(adaptive_net, photos[0][0]) == (130, "", "Interrupted.\n")


def test_a_missing_onnx_runtime_is_one_line(command, adaptive_net, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, error = command(adaptive_net, photos[0][0])
    assert (code, error.count("\n")) == (2, 1)
    assert "run `pip install onnxruntime`" in error
