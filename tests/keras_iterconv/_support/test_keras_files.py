"""`.keras` files from anywhere: nets of this package load, everything else is refused unread."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv._support import files
from keras_iterconv._support.files import FileError
from keras_iterconv._support.keras_files import (
    checked_copy,
    load_model_file,
    save_model_file,
)

# The others are made of the same classes, and take long to build.
SKIPPED = ("w16", "w32", "w64", "nais10", "nais_adaptive", "resnet_bn", "resnet_sh_bn")
NAMES = [name for name in ki.list_models() if not name.endswith(SKIPPED)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "net.keras"
    ki.create_model("nais_mnist", (4, 4, 1), 3, units=6).save(file)
    return file


@pytest.fixture
def rewrite(saved, tmp_path):
    """Return a function that copies the saved net with other members, and returns the path."""

    def write(change=lambda config: config, extra=(), compression=zipfile.ZIP_STORED):
        file = tmp_path / "changed.keras"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(file, "w", compression) as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = change(json.loads(content))
                    content = config if isinstance(config, str) else json.dumps(config)
                new.writestr(name, content)
            for name, content in extra:
                new.writestr(name, content)
        return file

    return write


def layer(module, name, registered_name=None, /, **config):
    return {
        "module": module,
        "class_name": name,
        "config": {"name": "evil", **config},
        "registered_name": registered_name,
        "build_config": {"input_shape": [None, 6]},
    }


GALLERY = {
    "module": "keras.visualization",
    "class_name": "function",
    "config": "plot_image_gallery",
    "registered_name": "plot_image_gallery",
}
MARSHAL = {
    "class_name": "__lambda__",
    "config": {"code": "4wAA", "defaults": None, "closure": None},
}
LAMBDA = layer("keras.layers", "Lambda", function=GALLERY, arguments={"path": "stolen.png"})
EVIL = {
    "Lambda of code": layer("keras.layers", "Lambda", function=MARSHAL),
    "Lambda of a function of Keras": LAMBDA,
    "Lambda of an operation": layer(
        "keras.layers", "Lambda", function={**GALLERY, "module": "keras.ops", "config": "relu"}
    ),
    "Lambda of older formats": {"class_name": "Lambda", "config": LAMBDA["config"]},
    "Lambda by its own module": {**LAMBDA, "module": "keras.src.layers.core.lambda_layer"},
    "Lambda called ours": {**LAMBDA, "registered_name": "keras_iterconv>Lambda"},
    "Lambda with another's registered name": {
        **LAMBDA,
        "registered_name": "keras_iterconv>NAISDense",
    },
    "code with our name": {**MARSHAL, "registered_name": "keras_iterconv>NAISDense"},
    "code with an allowed module": {**MARSHAL, "module": "keras.layers"},
    "Dense that is another's": layer("keras.layers", "Dense", "Custom>Evil", units=3),
    "TorchModuleWrapper": layer("keras.layers", "TorchModuleWrapper", module="gASV"),
    "TFSMLayer": layer("keras.layers", "TFSMLayer", filepath="/tmp/evil"),
    "JaxLayer": layer("keras.layers", "JaxLayer", call_fn=MARSHAL),
    "StringLookup that reads a file": layer(
        "keras.layers", "StringLookup", vocabulary="/etc/passwd"
    ),
    "in Sequential": layer("keras", "Sequential", layers=[LAMBDA]),
    "in a functional model": layer("keras.src.models.functional", "Functional", layers=[LAMBDA]),
    "in TimeDistributed": layer("keras.layers", "TimeDistributed", layer=LAMBDA),
    "in Bidirectional": layer("keras.layers", "Bidirectional", layer=LAMBDA),
    "as an activation": layer("keras.layers", "Activation", activation=GALLERY),
    "as an initializer": layer("keras.layers", "Dense", units=3, kernel_initializer=LAMBDA),
    "as a constraint in one of ours": layer(
        "keras_iterconv.layers.nais_dense",
        "NAISDense",
        "keras_iterconv>NAISDense",
        kernel_constraint=MARSHAL,
    ),
    "a function for a class": layer("keras.config", "enable_unsafe_deserialization"),
    "a type": {"class_name": "__typespec__", "config": [], "module": "os", "spec_name": "system"},
    "a class name that is none": {**LAMBDA, "class_name": ["Lambda"]},
    "a module that is none": {**LAMBDA, "class_name": "Dense", "module": ["keras.layers"]},
}


def insert(evil):
    """Return a change of a config that puts an object among the layers."""

    def change(config):
        config["config"]["layers"].append({**evil, "name": "evil", "inbound_nodes": []})
        return config

    return change


@pytest.mark.parametrize("evil", EVIL)
def test_what_no_net_has_is_refused_before_keras_sees_it(rewrite, monkeypatch, evil):
    file = rewrite(insert(EVIL[evil]))
    monkeypatch.setattr("keras.models.load_model", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(FileError, match=r"is not loaded: it holds .* which may run") as caught:
        load_model_file(file)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nothing_else_is_refused(rewrite):
    with pytest.raises(FileError, match="`Lambda`"):
        load_model_file(rewrite(lambda config: LAMBDA))
    with pytest.raises(FileError, match="`Lambda`"):
        load_model_file(rewrite(lambda config: {**config, "build_config": {"a": [LAMBDA]}}))


@pytest.mark.parametrize("name", NAMES)
def test_each_named_net_is_let_through(tmp_path, name):
    blocks = {"blocks": 1} if "_w" in name else {}
    model = ki.create_model(name, (8, 8, 1), 3, **blocks)
    file = tmp_path / "net.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps(keras.saving.serialize_keras_object(model)))
    with checked_copy(file):
        pass


def test_a_saved_net_loads(saved):
    model, again = keras.models.load_model(saved), load_model_file(saved)
    assert not again.compiled
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(model(image), again(image))


def test_what_trained_it_does_not_matter(rewrite):
    """The optimizer and the loss are not deserialised."""
    load_model_file(rewrite(lambda config: {**config, "compile_config": {"loss": LAMBDA}}))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([("assets/evil", "x")], "does not hold 'assets/evil'"),
        ([("../evil", "x")], "does not hold '../evil'"),
        ([("config.json", "{}")], "does not hold 'config.json'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_no_model_has(rewrite, extra, said):
    with pytest.raises(FileError, match=said):
        load_model_file(rewrite(extra=extra))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not of type 'object'"),
        ('{"a": NaN}', "NaN is no JSON number"),
        (100_000 * "[", "nested too deeply"),
        ("{}", "is no model that can be loaded"),
    ],
)
def test_a_config_that_is_none(rewrite, text, said):
    with pytest.raises(FileError, match=said) as caught:
        load_model_file(rewrite(lambda config: text))
    assert "\n" not in str(caught.value)


def test_members_that_grow_are_refused_by_size(rewrite, monkeypatch):
    monkeypatch.setattr("keras_iterconv._support.keras_files.TEXT_LIMIT", 100_000)
    bomb = [("training.json", 100_001 * " ")]
    with pytest.raises(FileError, match=r"training.json in it has 100,001 bytes; at most 100,000"):
        load_model_file(rewrite(extra=bomb, compression=zipfile.ZIP_DEFLATED))
    assert files.TEXT_LIMIT > 100_000


@pytest.mark.parametrize("keep", [0, 1, 50, -1, -30])
def test_a_damaged_archive(saved, tmp_path, keep):
    file = tmp_path / "short.keras"
    file.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(FileError, match="is no model that can be loaded") as caught:
        load_model_file(file)
    assert "\n" not in str(caught.value)


def test_what_is_loaded_is_what_was_checked(saved, tmp_path, monkeypatch):
    """Another process may replace the file at any time."""
    file, load = tmp_path / "net.keras", keras.models.load_model
    file.write_bytes(saved.read_bytes())

    def load_late(path, **kwargs):
        file.write_bytes(b"evil")
        return load(path, **kwargs)

    monkeypatch.setattr("keras.models.load_model", load_late)
    for got, weight in zip(load_model_file(file).weights, load(saved).weights, strict=True):
        np.testing.assert_array_equal(got, weight)


def test_files_are_refused_by_size(saved, monkeypatch):
    monkeypatch.setattr("keras_iterconv._support.keras_files._FILE_LIMIT", 1000)
    with pytest.raises(FileError, match=r"bytes; at most 1,000 were expected"):
        load_model_file(saved)


def test_what_hdf5_raises_on_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("Unable to flush file's cached\ninformation")

    model = ki.create_model("nais_mnist", (4, 4, 1), 3, units=6)
    monkeypatch.setattr("keras.Model.save", fail)
    with pytest.raises(OSError, match=r"^Unable to flush file's cached information$"):
        save_model_file(model, tmp_path / "net.keras")
