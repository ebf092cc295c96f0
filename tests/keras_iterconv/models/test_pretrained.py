"""Trained models by name: where they are looked for, and what is refused."""

import hashlib
import json

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.models.pretrained import ZooError


@pytest.fixture(scope="module")
def trained():
    return ki.create_model("nais_mnist", (4, 4, 1), 3, units=6)


@pytest.fixture
def zoo(trained, tmp_path):
    """Write a zoo of one model, by hand."""
    file = tmp_path / "zoo" / "small" / "1" / "small.keras"
    file.parent.mkdir(parents=True)
    trained.save(file)
    entry = {"files": {"small/1/small.keras": facts(file), "small/1/README.md": {}}}
    write_index(tmp_path / "zoo", {"models": {"small": entry}})
    return tmp_path / "zoo"


def facts(file):
    content = file.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def write_index(zoo, index):
    (zoo / "index.json").write_text(index if isinstance(index, str) else json.dumps(index))


def rename_file(zoo, place, **changes):
    index = json.loads((zoo / "index.json").read_text())
    files = index["models"]["small"]["files"]
    files[place] = {**files.pop("small/1/small.keras"), **changes}
    write_index(zoo, index)


def images(samples=5):
    return np.random.default_rng(0).normal(size=(samples, 4, 4, 1)).astype(np.float32)


def test_the_weights_are_those_that_were_published(trained, zoo):
    for place in (zoo, str(zoo)):
        model = ki.load_pretrained("small", place)
        assert type(model) is ki.IterativeModel
        assert not model.compiled
        np.testing.assert_array_equal(model(images()), trained(images()))


def test_where_a_zoo_is_looked_for(trained, zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_ITERCONV_ZOO", str(zoo))
    np.testing.assert_array_equal(ki.load_pretrained("small")(images()), trained(images()))
    # What is given wins over the variable.
    monkeypatch.setenv("KERAS_ITERCONV_ZOO", str(tmp_path / "nowhere"))
    ki.load_pretrained("small", zoo)
    with pytest.raises(ZooError, match=r"nowhere holds no zoo: index.json is missing"):
        ki.load_pretrained("small")


def test_it_goes_on_training(zoo):
    model = ki.load_pretrained("small", zoo)
    model.compile("sgd", "mse")
    before = [w.numpy() for w in model.trainable_variables]
    model.fit(images(), np.ones((5, 3), np.float32), batch_size=5, verbose=0)
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(weight.numpy() - old).max() > 0


@pytest.mark.parametrize("name", ["smal", "", "../small", None, 3, ["small"]])
def test_names_that_are_unknown(zoo, name):
    with pytest.raises(ValueError, match="name") as error:
        ki.load_pretrained(name, zoo)
    assert "small" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["start", "middle", "end", "longer"])
def test_a_changed_file_is_not_loaded(zoo, where, monkeypatch):
    path = zoo / "small" / "1" / "small.keras"
    content = bytearray(path.read_bytes())
    if where == "longer":
        content += b"0"
    else:
        content[{"start": 0, "middle": len(content) // 2, "end": -1}[where]] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("keras.models.load_model", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(ZooError, match=r"small.keras is not the file that was published"):
        ki.load_pretrained("small", zoo)


def test_a_missing_file(zoo):
    (zoo / "small" / "1" / "small.keras").unlink()
    with pytest.raises(ZooError, match=r"small.keras is missing"):
        ki.load_pretrained("small", zoo)


@pytest.mark.parametrize("kind", ["relative", "absolute", "link", "other"])
def test_a_file_outside_is_not_read(trained, zoo, tmp_path, kind):
    outside = tmp_path / "evil.keras"
    trained.save(outside)
    place = "small/1/small.keras"
    if kind == "relative":
        place = "small/../../evil.keras"
    elif kind == "absolute":
        place = str(outside)
    elif kind == "other":
        # In the zoo, but another model's.
        place = "other/1/small.keras"
        (zoo / "other" / "1").mkdir(parents=True)
        (zoo / place).write_bytes(outside.read_bytes())
    else:
        (zoo / place).unlink()
        (zoo / place).symlink_to(outside)
    rename_file(zoo, place, **facts(outside))
    with pytest.raises(ZooError, match=r"lies outside") as error:
        ki.load_pretrained("small", zoo)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("", "cannot be read"),
        ('{"models": {"small"', "cannot be read"),
        ("\udcff", "cannot be read"),
        ([], "is no index"),
        ({}, "is no index"),
        ({"models": []}, "is no index"),
        ({"models": {"small": None}}, "must name one file"),
        ({"models": {"small": {}}}, "must name one file"),
        ({"models": {"small": {"files": {}}}}, "must name one file"),
        ({"models": {"small": {"files": ["a.keras"]}}}, "must name one file"),
        ({"models": {"small": {"files": {"a.keras": {}, "b.keras": {}}}}}, "must name one file"),
        ({"models": {"small": {"files": {"small/1/small.keras": None}}}}, "is not the file"),
        ({"models": {"small": {"files": {"small/1/small.keras": {}}}}}, "is not the file"),
    ],
)
def test_damaged_indices(zoo, index, said):
    if index == "\udcff":
        (zoo / "index.json").write_bytes(b"\xff\xfe\x00")
    else:
        write_index(zoo, index)
    with pytest.raises(ZooError, match=said) as error:
        ki.load_pretrained("small", zoo)
    assert "\n" not in str(error.value)
