"""Trained models by name: where they are looked for, and what is refused."""

import hashlib
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.zoo import index as zoo_index
from keras_iterconv.zoo import pretrained
from keras_iterconv.zoo.index import ZooError


@pytest.fixture(scope="module")
def trained():
    return ki.create_model("nais_mnist", (4, 4, 1), 3, units=6)


ENTRY = {
    "architecture": "nais_mnist",
    "dataset": "digits",
    "input_shape": [4, 4, 1],
    "classes": ["cat", "dog", "cow"],
    "scale": 16,
    "mean": [2.5],
    "std": [0.75],
    "depth": None,
    "parameters": 7,
    "command": "python -m training.fit",
    "result": dict.fromkeys(
        ("test_accuracy", "epochs", "seed", "mean_depth", "processing_depth"), 1
    ),
    "certificate": {
        **{"holds": True, "blocks": 1, "blocks_that_hold": 1, "findings": {}, "norm": "2"},
        **{"largest_factor": 1, "bound": None, "largest_ratio": None},
    },
    "operators": {},
    "license": "Apache-2.0",
    "versions": {},
}


@pytest.fixture
def zoo(trained, tmp_path):
    """Write a zoo of one model, by hand."""
    folder = tmp_path / "zoo" / "small" / "1"
    folder.mkdir(parents=True)
    trained.save(folder / "small.keras")
    (folder / "README.md").write_text("# small, a card\n", encoding="utf-8")
    write_files(tmp_path / "zoo", ["small/1/small.keras", "small/1/README.md"])
    return tmp_path / "zoo"


def write_files(zoo, places):
    """Write an index of one model with these files, as they are now."""
    files = {place: facts(zoo / place) for place in places}
    write_index(zoo, {"version": 1, "models": {"small": {**ENTRY, "files": files}}})


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
    with pytest.raises(ZooError, match=r"nowhere is not a zoo: index.json is missing"):
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


@pytest.mark.parametrize("kind", ["relative", "absolute", "link", "folder's link", "other"])
def test_a_file_outside_is_not_read(trained, zoo, tmp_path, kind, monkeypatch):
    outside = tmp_path / "evil.keras"
    trained.save(outside)
    place, said = "small/1/small.keras", "lies outside"
    if kind == "relative":
        place, said = "small/../../evil.keras", "does not match"
    elif kind == "absolute":
        place, said = str(outside), "does not match"
    elif kind == "other":
        # In the zoo, but another model's.
        place = "other/1/small.keras"
        (zoo / "other" / "1").mkdir(parents=True)
        (zoo / place).write_bytes(outside.read_bytes())
    elif kind == "link":
        (zoo / place).unlink()
        (zoo / place).symlink_to(outside)
    else:
        (zoo / "small").rename(tmp_path / "elsewhere")
        (zoo / "small").symlink_to(tmp_path / "elsewhere")
    rename_file(zoo, place, **facts(outside))
    monkeypatch.setattr("keras.models.load_model", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(ZooError, match=said) as error:
        ki.load_pretrained("small", zoo)
    assert "\n" not in str(error.value)


def test_a_model_whose_name_is_a_path_is_not_loaded(zoo, tmp_path):
    """Joined to the zoo's folder, it would be another folder."""
    outside = tmp_path / "outside"
    (zoo / "small").rename(outside)
    files = {f"{outside}/1/{file.name}": facts(file) for file in (outside / "1").iterdir()}
    write_index(zoo, {"version": 1, "models": {str(outside): {**ENTRY, "files": files}}})
    with pytest.raises(ZooError, match=r"index.json is not as expected: models"):
        ki.load_pretrained(str(outside), zoo)


DEEP = 100_000 * '{"a":'


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("", "is not JSON"),
        ('{"models": {"small"', "is not JSON"),
        (DEEP, "is nested too deeply"),
        ("\udcff", "is not text in UTF-8"),
        ([], "is not of type 'object'"),
        ({}, "is a required property"),
        ({"version": 1, "models": []}, "models: .* is not of type 'object'"),
        ({"version": 2, "models": {}}, "version: 1 was expected"),
        ({"small": None}, "models/small: None is not of type"),
        ({"small": {"files": {}}}, "models/small: .* is a required property"),
        ({"small": {**ENTRY, "files": {}}}, "models/small/files"),
        ({"small": {**ENTRY, "files": ["a.keras"]}}, "models/small/files: .* is not of type"),
        ({"small": {**ENTRY, "files": {"small/1/small.keras": {}}}}, "is a required property"),
        ({"small": {**ENTRY, "files": {}, "scale": float("nan")}}, "NaN is no JSON number"),
        ({"²": ENTRY}, "does not match"),
        ({"small\n": ENTRY}, "does not match"),
        ({300 * "a": ENTRY}, "models: 'aaaa"),
    ],
)
def test_damaged_indices(zoo, index, said):
    if index == "\udcff":
        (zoo / "index.json").write_bytes(b"\xff\xfe\x00")
    else:
        whole = isinstance(index, (str, list)) or "version" in index or not index
        write_index(zoo, index if whole else {"version": 1, "models": index})
    for read in (lambda: ki.load_pretrained("small", zoo), lambda: ki.list_pretrained(zoo)):
        with pytest.raises(ZooError, match=rf"index.json .*{said}") as error:
            read()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1000


def test_an_entry_names_one_file_of_a_kind(zoo):
    (zoo / "small" / "1" / "other.keras").write_bytes(b"x")
    write_files(zoo, ["small/1/README.md"])
    with pytest.raises(ZooError, match=r"must name one file \*.keras; it names \[\]"):
        ki.load_pretrained("small", zoo)
    write_files(zoo, ["small/1/README.md", "small/1/small.keras", "small/1/other.keras"])
    with pytest.raises(ZooError, match="must name one file"):
        ki.load_pretrained("small", zoo)


def test_a_file_of_another_size_is_not_read(zoo):
    """A sparse one of 100 GB would take minutes."""
    os.truncate(zoo / "small" / "1" / "small.keras", 100 * 2**30)
    with pytest.raises(ZooError, match="it has 107,374,182,400 bytes instead of"):
        ki.load_pretrained("small", zoo)


def test_what_belongs_to_a_model(zoo, trained):
    assert ki.list_pretrained(zoo) == ["small"]
    model = ki.load_pretrained("small", zoo)
    assert model.preprocessing == ki.Preprocessing(mean=(2.5,), std=(0.75,))
    assert model.class_names == ("cat", "dog", "cow")
    assert model.card == "# small, a card\n"
    assert trained.preprocessing is trained.class_names is trained.card is None


@pytest.mark.parametrize("kind", [np.asarray, tf.constant])
def test_preprocessing_refuses_another_number_of_channels(kind):
    preprocessing = ki.Preprocessing(mean=(2.5,), std=(0.75,))
    with pytest.raises(ValueError, match=r"must have 1 channels.*shape \(2, 8, 8, 3\)"):
        preprocessing(kind(np.zeros((2, 8, 8, 3))))


@pytest.mark.parametrize("shape", [None, (None, None, None, None)])
def test_preprocessing_takes_tensors_of_unknown_shape(shape):
    preprocessing = ki.Preprocessing(mean=(2.5,), std=(0.5,))
    traced = tf.function(lambda x: preprocessing(x), input_signature=[tf.TensorSpec(shape)])
    np.testing.assert_array_equal(traced(tf.fill([1, 2, 2, 1], 3.0)), np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("kind", [np.array, tf.constant])
def test_preprocessing_standardises(zoo, kind):
    raw = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)
    standardised = ki.load_pretrained("small", zoo).preprocessing(kind(raw))
    assert type(standardised) is (np.ndarray if kind is np.array else type(tf.constant(0)))
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised, (raw - 2.5) / 0.75, rtol=1e-6)


def test_preprocessing_as_part_of_a_functional_model():
    preprocessing = ki.Preprocessing(mean=(2.5, 100.0), std=(0.5, 30.0))
    inputs = keras.Input((4, 4, 2), dtype="uint8")
    model = keras.Model(inputs, preprocessing(inputs))
    raw = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 2)).astype(np.uint8)
    expected = (raw - np.array([2.5, 100.0])) / np.array([0.5, 30.0])
    loaded = keras.Model.from_config(model.get_config())
    for each in (model, loaded):
        np.testing.assert_allclose(each(raw), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="`images` must have 2 channels"):
        preprocessing(keras.Input((4, 4, 3)))


def test_what_belongs_to_a_model_is_saved_with_it(zoo, tmp_path):
    model = ki.load_pretrained("small", zoo)
    model.compile("sgd", "mse")
    model.fit(images(), np.ones((5, 3), np.float32), verbose=0)
    model.save(tmp_path / "mine.keras")
    again = keras.models.load_model(tmp_path / "mine.keras")
    assert again.preprocessing == model.preprocessing
    assert again.class_names == model.class_names
    # It told of the weights that were published.
    assert again.card is None
    np.testing.assert_array_equal(again(images()), model(images()))


def test_an_installed_package_says_how_to_get_a_zoo(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_ITERCONV_ZOO", raising=False)
    monkeypatch.setattr(zoo_index, "CHECKOUT_ZOO", tmp_path / "saved_models")
    for read in (ki.list_pretrained, lambda: ki.load_pretrained("small")):
        with pytest.raises(ZooError, match=r"no trained models; .* repository.*iterconv publish"):
            read()


def test_a_folder_without_a_name_is_refused():
    with pytest.raises(ZooError, match=r"`zoo` must name a folder\. Received: zoo=''"):
        ki.list_pretrained("")


@pytest.mark.parametrize("folder", [300 * "x", "a\0b"])
def test_folders_that_no_system_has(folder):
    with pytest.raises(ZooError, match="is not a zoo"):
        ki.list_pretrained(folder)


def test_a_model_that_is_replaced_while_it_is_read(zoo, monkeypatch):
    """A publication removes the old files once the index names the new ones."""
    real = pretrained.load_model_file

    def replace_first(path):
        monkeypatch.setattr(pretrained, "load_model_file", real)
        (zoo / "small" / "1").rename(zoo / "small" / "2")
        write_files(zoo, ["small/2/small.keras", "small/2/README.md"])
        return real(path)

    monkeypatch.setattr(pretrained, "load_model_file", replace_first)
    assert ki.load_pretrained("small", zoo).class_names == ("cat", "dog", "cow")


def test_code_in_a_published_file_is_refused(zoo, monkeypatch):
    """A hash says that a file is the one that was published, not that it is harmless."""
    inputs = keras.Input((4, 4, 1))
    evil = keras.layers.Lambda(keras.ops.relu)(inputs)
    ki.IterativeModel(inputs, evil).save(zoo / "small" / "1" / "small.keras")
    write_files(zoo, ["small/1/small.keras", "small/1/README.md"])
    monkeypatch.setattr("keras.models.load_model", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(ZooError, match="`Lambda`"):
        ki.load_pretrained("small", zoo)
