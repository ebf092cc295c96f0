"""The demonstration in a browser, by mouse and keys: its answers and depths are those of Keras."""

import base64
import contextlib
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import keras_iterconv as ki
from export.demo_nets import DIGIT_NETS, SEQUENCE_NET
from export.preparation import PREPARATIONS, prepare
from keras_iterconv._support.outputs import output_key
from tests.support.browser import browser_page, served
from tests.support.processes import ROOT

pytestmark = pytest.mark.browser

CALM = "!document.querySelector('[aria-busy=true]')"
IDLE = f"document.getElementById('loading').hidden && {CALM}"
FAILED = (
    "!document.getElementById('loading').hidden && !!document.querySelector('#loading.failure')"
)
INDEX = json.loads((ROOT / "saved_models" / "index.json").read_text())["models"]
NETS = list(DIGIT_NETS)
STATUS = {"converged": 0, "at the limit": 1, "not finite": 2}
# A digit as a stroke on the unit square.
SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)]
BROWSER_SECONDS = 280


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder as the command writes it, with the runtime that npm downloads."""
    output = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "export.demo", "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=BROWSER_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    return output


@pytest.fixture
def page(folder, tmp_path):
    """The page, ready; at the end there must have been no error and no request to the outside."""
    with served(folder) as url, browser_page(tmp_path / "profile", BROWSER_SECONDS) as page:
        page.resize(1280, 900)
        page.open(url, IDLE)
        yield page
        assert page.errors == []
        assert {request[: len(url)] for request in page.requests} == {url}


def click(page, selector):
    page.run(f"document.querySelector({selector!r}).click()")
    page.wait(IDLE)


def choose_net(page, name):
    click(page, f"input[value={name}]")


def texts(page, selector):
    return page.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")


def read_blocks(page):
    """Return depth, status and norms of each block, as the table of the page says."""
    rows = page.run(
        "[...document.querySelectorAll('#numbers tbody tr')]"
        ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
    )
    return [
        (int(depth), STATUS[status], np.array(norms.split(), float))
        for depth, status, norms in rows
    ]


def pixels_of(net):
    """Return the test images of a net of the page."""
    raw = [np.frombuffer(base64.b64decode(each["pixels"]), np.uint8) for each in net["images"]]
    return np.stack(raw).reshape(-1, *net["input_shape"]).astype(np.float32)


def answers_of_keras(name, images):
    """Return classes, depth and status by Keras."""
    model = ki.load_pretrained(name)
    found = ki.with_depth(model).predict(model.preprocessing(images), verbose=0)
    return found[output_key(model)].argmax(axis=-1), found["depth"], found["status"]


def test_the_folder_is_small_and_its_table_is_that_of_the_zoo(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 30e6
    for net in json.loads((folder / "demo.json").read_text())["digits"]:
        result = INDEX[net["name"]]["result"]
        (row,) = (row for row in net["thresholds"] if row["threshold"] == net["threshold"])
        assert row["accuracy"] == pytest.approx(result["test_accuracy"], abs=2 / net["test_images"])
        assert row["updates"] == pytest.approx(result["mean_depth"], rel=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_twenty_images_have_the_classes_and_depths_of_keras(page, folder, name):
    (net,) = (
        net
        for net in json.loads((folder / "demo.json").read_text())["digits"]
        if net["name"] == name
    )
    images = pixels_of(net)
    assert len(images) == 20
    classes, depths, statuses = answers_of_keras(name, images)
    choose_net(page, name)
    for number in range(20):
        click(page, f"#images button:nth-child({number + 1})")
        blocks = read_blocks(page)
        assert texts(page, "#answer") == [net["classes"][classes[number]]]
        assert [depth for depth, _, _ in blocks] == depths[number].tolist()
        assert [status for _, status, _ in blocks] == statuses[number].tolist()
        for depth, status, norms in blocks:
            assert len(norms) == depth
            assert np.all(norms[:-1] >= net["threshold"])
            # Shown with three digits.
            assert norms[-1] <= net["threshold"] or status == 1


def test_bits_have_the_answers_and_depths_of_keras(page):
    rng = np.random.default_rng(0)
    # Without pauses between rows.
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.send("Emulation.setEmulatedMedia", features=features)
    for count, length in ((1, 1), (3, 8), (8, 24), (7, 40), (1, 64)):
        bits = rng.integers(0, 2, (count, length))
        answers, depths, _ = answers_of_keras(
            SEQUENCE_NET, bits[..., None, None].astype(np.float32)
        )
        for sequence, answer, depth in zip(bits, answers, depths, strict=True):
            text = "".join(map(str, sequence))
            page.run(f"document.getElementById('bits-input').value = {text!r}")
            click(page, "#bits-form [type=submit]")
            assert len(texts(page, "#travel tbody tr")) == depth[0]
            assert texts(page, "#travel tbody tr:last-child td") == list(map(str, answer))
            wrong = np.sum(answer != sequence.cumsum() % 2)
            assert len(texts(page, "#travel tbody tr:last-child .wrong")) == wrong
    page.run("document.getElementById('bits-input').value = '0120'")
    click(page, "#bits-form [type=submit]")
    assert texts(page, "#bits-error") == ["Type ones and zeros only, at least one of them."]


def draw(page, stroke):
    left, top, side = page.run(
        "(({left, top, width}) => [left, top, width])"
        "(document.getElementById('paper').getBoundingClientRect())"
    )
    points = [(left + x * side, top + y * side) for x, y in stroke]
    page.mouse("mousePressed", *points[0])
    for point in points:
        page.mouse("mouseMoved", *point)
    page.mouse("mouseReleased", *points[-1])
    page.wait(IDLE)


@pytest.mark.parametrize("name", NETS)
def test_a_drawn_digit_is_prepared_as_in_python_and_read(page, name):
    choose_net(page, name)
    draw(page, SEVEN)
    assert texts(page, "#answer") == ["7"]
    drawn = base64.b64decode(page.run("document.getElementById('paper').toDataURL().split(',')[1]"))
    entry = INDEX[name]
    size = tuple(entry["input_shape"][:2])
    expected = prepare(
        Image.open(io.BytesIO(drawn)).convert("L"), size, PREPARATIONS[entry["dataset"]]
    )
    seen = page.run(
        "(({width, height}, context) => [...context.getImageData(0, 0, width, height).data])"
        "(document.getElementById('seen'), document.getElementById('seen').getContext('2d'))"
    )
    # A level of 8 bits, and means of pixels of 8 bits.
    np.testing.assert_allclose(
        np.reshape(seen, (*size, 4))[..., 0] / 255, expected.pixels, atol=2 / 255
    )
    click(page, "#clear")
    assert texts(page, "#answer") == ["\N{EN DASH}"]


def test_all_can_be_done_by_keys(page):
    page.run("document.getElementById('paper').focus()")
    for key in (" ", *["ArrowDown"] * 18):
        page.press(key)
    page.wait(IDLE)
    assert texts(page, "#answer") == ["1"]
    before = int(read_blocks(page)[0][0])
    page.run("document.getElementById('threshold').focus()")
    for _ in range(4):
        page.press("ArrowRight")
    page.wait(IDLE)
    assert read_blocks(page)[0][0] < before
    assert texts(page, "#threshold-own") == ["trained with 2"]
    click(page, "#reset")
    assert read_blocks(page)[0][0] == before
    page.run("document.getElementById('paper').focus()")
    page.press("Delete")
    page.wait(IDLE)
    assert texts(page, "#answer") == ["\N{EN DASH}"]


def test_every_control_has_a_name(page):
    click(page, "#images button")
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
    ]
    roles = {role for role, _ in controls}
    assert {"button", "radio", "slider", "textbox", "link"} <= roles
    assert not [role for role, name in controls if not name and role != "RootWebArea"]


def test_nothing_is_wider_than_the_window(page):
    choose_net(page, NETS[1])
    click(page, "#images button")
    click(page, "[data-random='64']")
    for width, scheme in itertools.product((1280, 390, 320), ("light", "dark")):
        page.resize(width, 900, scheme)
        assert page.run("document.documentElement.scrollWidth") <= width
        # What is cut off scrolls by itself.
        assert page.run("document.querySelector('#travel').clientWidth") > 1000
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, ground[4:-1].split(","))) < 128) == (scheme == "dark")


def test_what_is_missing_is_said(folder, tmp_path):
    (tmp_path / "demo").mkdir()
    for name in ("index.html", "demo.js", "demo.css", "runtime"):
        (tmp_path / "demo" / name).symlink_to(folder / name)
    with served(tmp_path / "demo") as url, browser_page(tmp_path / "profile") as page:
        page.open(url, "document.getElementById('loading').className === 'failure'")
        assert texts(page, "#loading") == ["This did not work: demo.json: 404 File not found"]
        assert any("404" in error for error in page.errors)


@contextlib.contextmanager
def served_without(folder, place, missing):
    """Serve a demonstration that lacks the file of a net; yield its address and what adds the file.

    Args:
        folder: The whole demonstration.
        place: An empty folder for links to its files.
        missing: The name of the net.
    """
    (place / "nets").mkdir(parents=True)
    for name in ("index.html", "demo.js", "demo.css", "demo.json", "runtime"):
        (place / name).symlink_to(folder / name)
    files = {
        name: file for name in (*NETS, SEQUENCE_NET) for file in (folder / "nets").glob(f"{name}*")
    }

    def add(name):
        (place / "nets" / files[name].name).symlink_to(files[name])

    for name in files:
        if name != missing:
            add(name)
    with served(place) as url:
        yield url, lambda: add(missing)


def test_a_net_that_cannot_be_loaded_leaves_the_others_alone(folder, tmp_path):
    """The reader is told, goes on with the first net, and is not told any more."""
    with (
        served_without(folder, tmp_path / "demo", NETS[1]) as (url, _),
        browser_page(tmp_path / "profile") as page,
    ):
        page.open(url, IDLE)
        page.run(f"document.querySelector('input[value={NETS[1]}]').click()")
        page.wait("!document.getElementById('loading').hidden")
        (said,) = texts(page, "#loading")
        assert said.startswith("This did not work: nets/")
        assert said.endswith("404 File not found")
        choose_net(page, NETS[0])
        click(page, "#images button")
        assert texts(page, "#answer") == ["0"]


@pytest.mark.parametrize("missing", [NETS[0], SEQUENCE_NET])
def test_a_part_that_fails_says_so_until_it_works(folder, tmp_path, missing):
    """Also when the net is missing from the start, and while the other part works."""
    with (
        served_without(folder, tmp_path / "demo", missing) as (url, add),
        browser_page(tmp_path / "profile") as page,
    ):
        page.open(url, f"{FAILED} && {CALM}")
        other, own = "#bits-form [type=submit]", "#images button"
        if missing == SEQUENCE_NET:
            other, own = own, other
        page.run(f"document.querySelector('{other}').click()")
        page.wait(CALM)
        assert page.run(FAILED)
        (said,) = texts(page, "#answer" if missing == SEQUENCE_NET else "#bits-answer")
        assert said == "0" or said.startswith("Converged after")
        add()
        click(page, own)
        (said,) = texts(page, "#bits-answer" if missing == SEQUENCE_NET else "#answer")
        assert said == "0" or said.startswith("Converged after")
