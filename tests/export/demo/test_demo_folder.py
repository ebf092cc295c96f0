"""The folder of the demonstration: what it replaces, what it refuses, and what its page says."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from export import demo_folder, demo_nets
from export.demo_nets import NetFiles
from iterconv.command_errors import UserError
from keras_iterconv.zoo.index import ZooError
from tests.support.small_zoo import publish

NAMES = [*demo_nets.DIGIT_NETS, demo_nets.SEQUENCE_NET]
PAGE = demo_folder.PAGE


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a folder of nets and a runtime that are a few bytes."""
    zoo = tmp_path / "zoo"
    for name in NAMES:
        publish(zoo, name)

    def net(name, *_):
        return NetFiles({"name": name, "file": f"{name}.onnx"}, b"net")

    monkeypatch.setattr(
        demo_folder, "read_runtime", lambda package: {"a.mjs": b"a", "b.wasm": b"b"}
    )
    monkeypatch.setattr(demo_folder, "make_digit_net", lambda zoo, name, *rest: net(name))
    monkeypatch.setattr(demo_folder, "make_sequence_net", lambda *rest: net(NAMES[-1]))
    console = Console(file=io.StringIO())
    return lambda output: demo_folder.write_demo(output, zoo, None, console)


def test_the_folder_is_whole_and_replaces_an_earlier_one(write, tmp_path):
    output = tmp_path / "a" / "demo"
    for _ in range(2):
        write(output)
        found = {path.relative_to(output).as_posix() for path in output.rglob("*.*")}
        page = {path.name for path in PAGE.iterdir()}
        nets = {f"nets/{name}.onnx" for name in NAMES}
        assert found == {"demo.json", "runtime/a.js", "runtime/b.wasm", *page, *nets}
        assert [net["name"] for net in json.loads((output / "demo.json").read_text())["digits"]]
        assert list(output.parent.iterdir()) == [output]
        (output / "nets" / "old.onnx").touch()


def test_what_is_no_demonstration_is_kept(write, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="--output must be a new folder or an earlier demo"):
        write(tmp_path)
    with pytest.raises(UserError, match="--output must be a folder"):
        write(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_a_zoo_without_the_nets_is_refused(tmp_path):
    publish(tmp_path / "zoo", NAMES[0])
    with pytest.raises(UserError, match=f"has no {', '.join(sorted(NAMES[1:]))}"):
        demo_folder.write_demo(tmp_path / "demo", tmp_path / "zoo", None, Console())


def test_an_installed_package_has_no_nets_and_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_ITERCONV_ZOO", raising=False)
    monkeypatch.setattr("keras_iterconv.zoo.index.CHECKOUT_ZOO", tmp_path)
    with pytest.raises(ZooError, match="saved_models/ of the project's repository"):
        demo_folder.write_demo(tmp_path / "demo", None, None, Console())
    publish(tmp_path / "zoo", NAMES[0])
    monkeypatch.setenv("KERAS_ITERCONV_ZOO", str(tmp_path / "zoo"))
    with pytest.raises(UserError, match=f"{tmp_path / 'zoo'} has no"):
        demo_folder.write_demo(tmp_path / "demo", None, None, Console())


def test_the_thresholds_of_the_slider_include_the_trained_one():
    for name, (_, lowest, highest) in demo_nets.DIGIT_NETS.items():
        found = demo_nets.thresholds_of(name, 1.01)
        assert 1.01 in found
        assert len(found) == demo_nets.STEPS + 1
        assert (found[0], found[-1]) == (lowest, highest)
        ratios = [b / a for a, b in itertools.pairwise(each for each in found if each != 1.01)]
        np.testing.assert_allclose(ratios, np.mean(ratios), rtol=0.1)


def test_the_images_are_the_first_two_of_each_class():
    labels = np.array([1, 0, 1, 1, 0, 0])
    images = np.arange(6 * 4, dtype=np.float32).reshape(6, 2, 2, 1)
    chosen = demo_nets._choose_images(images, labels)
    pixels = [np.frombuffer(base64.b64decode(c["pixels"]), np.uint8) for c in chosen]
    assert [c["label"] for c in chosen] == [0, 0, 1, 1]
    np.testing.assert_array_equal([p[0] // 4 for p in pixels], [1, 4, 0, 2])
    with pytest.raises(ValueError, match="whole pixel values"):
        demo_nets._choose_images(images + 0.5, labels)


class Names(HTMLParser):
    """The attributes of a page by their names."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            self.found.setdefault(key, []).append(value)


def test_script_and_page_name_the_same_parts_and_nothing_outside():
    page, script = ((PAGE / name).read_text() for name in ("index.html", "demo.js"))
    names = Names()
    names.feed(page)
    assert len(names.found["id"]) == len(set(names.found["id"]))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(names.found["id"])
    pointed = [
        *names.found["for"],
        *names.found["aria-labelledby"],
        *names.found["aria-describedby"],
    ]
    assert set(pointed) <= set(names.found["id"])
    for text in (page, script, (PAGE / "demo.css").read_text()):
        assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}


# What is text on what, and then what is drawn on what: WCAG's levels AA.
TEXTS = ["ink page", "ink card", "soft page", "soft card", "accent page", "accent card"]
TEXTS += ["on-accent accent", "ink pale", "limit card", "bad page", "bad card"]
MARKS = ["mark card", "mark page", "accent line"]


def luminance(colour):
    values = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_contrasts_are_those_of_wcag():
    schemes = re.findall(r":root \{(.*?)\}", (PAGE / "demo.css").read_text(), re.S)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for pairs, least in ((TEXTS, 4.5), (MARKS, 3)):
            for pair in pairs:
                dark, light = sorted(luminance(colours[name]) for name in pair.split())
                assert (light + 0.05) / (dark + 0.05) >= least, pair
