"""Models on the Hugging Face Hub, by a server on this machine: downloaded, verified, refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.zoo.index import ZooError
from tests.support.hub_server import COMMIT, serve_hub

ZOO = Path(__file__).parents[3] / "saved_models"
NAME = "nais_mnist_adaptive"


@pytest.fixture
def folder(tmp_path):
    """Return a folder as it is uploaded: one model of the zoo, its index, its card at the top."""
    folder = tmp_path / "uploaded"
    shutil.copytree(ZOO / NAME, folder / NAME)
    shutil.copyfile(next(folder.rglob("README.md")), folder / "README.md")
    write_models(folder, [NAME])
    return folder


def write_models(folder, names):
    index = json.loads((ZOO / "index.json").read_text(encoding="utf-8"))
    index["models"] = {name: index["models"][name] for name in names}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture
def hub(folder, tmp_path):
    with serve_hub({"me/net": folder}, tmp_path / "cache") as server:
        yield server


def test_a_model_on_the_hub_is_the_published_one(hub, tmp_path):
    model = ki.load_pretrained("hf://me/net")
    expected = ki.load_pretrained(NAME, zoo=ZOO)
    assert len(model.weights) == len(expected.weights) > 0
    for found, weight in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), weight.numpy())
    assert model.card == expected.card
    # Neither ONNX nor SavedModel.
    suffixes = {Path(file).suffix for file in hub.read}
    assert suffixes == {".json", ".keras", ".md"}
    assert not any(path.is_symlink() for path in (tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("revision", [COMMIT, "some/branch"])
def test_a_revision_has_a_folder_of_its_own(hub, tmp_path, revision):
    ki.load_pretrained("hf://me/net")
    ki.load_pretrained(f"hf://me/net@{revision}")
    below = tmp_path / "cache" / "keras_iterconv" / "me" / "net"
    assert len(list(below.iterdir())) == 2
    # The files are those of the commit that the hub names for the revision.
    assert {"main", revision} <= hub.revisions <= {"main", revision, COMMIT}


def test_nothing_but_the_model_of_the_index_is_downloaded(hub, folder):
    (folder / "other").mkdir()
    (folder / "other" / "large.keras").write_bytes(b"no model")
    ki.load_pretrained("hf://me/net")
    assert not [file for file in hub.read if file.startswith("other")]


def test_a_damaged_download_says_what_to_do(hub, tmp_path):
    ki.load_pretrained("hf://me/net")
    (file,) = (tmp_path / "cache" / "keras_iterconv").rglob("*.keras")
    file.write_bytes(b"damaged")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(
        ZooError, match=r"delete .*keras_iterconv.me.net.main, and load hf://me/net"
    ):
        ki.load_pretrained("hf://me/net")


def test_a_second_load_reads_nothing_again_and_needs_no_connection(hub):
    ki.load_pretrained("hf://me/net")
    hub.read.clear()
    ki.load_pretrained("hf://me/net")
    assert hub.read == []
    hub.shutdown()
    hub.server_close()
    ki.load_pretrained("hf://me/net")


def test_a_changed_file_is_refused(hub, folder):
    (file,) = folder.rglob("*.keras")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ZooError, match=r"is not the file that was published as 'nais_mnist_adap"):
        ki.load_pretrained("hf://me/net")


def test_what_is_no_model_is_refused(hub, folder):
    with pytest.raises(ZooError, match=r"hf://me/none cannot be downloaded: .*404"):
        ki.load_pretrained("hf://me/none")
    write_models(folder, [NAME, "nais_mnist"])
    with pytest.raises(ZooError, match="must hold one model; its index names"):
        ki.load_pretrained("hf://me/net")


def test_a_repository_without_an_index_is_refused(hub, folder):
    (folder / "index.json").unlink()
    with pytest.raises(ZooError, match=r"index.json is missing.*--hub-folder"):
        ki.load_pretrained("hf://me/net")


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://net",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://../x",
        "hf://me/net@..",
        "hf://me/net@x/../y",
        "hf://me/net@..\\c",
    ],
)
def test_an_invalid_address_is_refused(hub, address):
    with pytest.raises(ZooError, match=r"must be named hf://owner/name|cannot be downloaded"):
        ki.load_pretrained(address)
    assert hub.read == []
    assert hub.revisions == set()


def test_a_zoo_beside_an_address_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`zoo` must be None.*Received: name='hf://me/net'"):
        ki.load_pretrained("hf://me/net", zoo=tmp_path)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ZooError, match=r'pip install "keras-iterconv\[hub\]"'):
        ki.load_pretrained("hf://me/net")
