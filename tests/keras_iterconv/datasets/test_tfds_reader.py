import http.server
import logging
import os
import socket
import threading

import pytest
import requests
import tensorflow_datasets as tfds

from keras_iterconv import datasets
from keras_iterconv.datasets import DatasetCorruptedError, DatasetNotFoundError, tfds_reader
from keras_iterconv.datasets.tfds_reader import is_reachable
from tests.support.comparisons import one_sentence


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))

    def unexpected(self, **kwargs):
        pytest.fail("A test that says nothing of a download started one.")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unexpected)
    return folder


def everything_under(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_without_a_connection(empty_folder, monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: asked.append(url))
    with pytest.raises(DatasetNotFoundError) as error:
        datasets.load("cifar10")
    text = one_sentence(error)
    for part in ("'cifar10'", str(empty_folder), "TFDS_DATA_DIR", "www.cs.toronto.edu"):
        assert part in text
    assert len(asked) == 1
    assert everything_under(empty_folder) == []
    assert "WARNING" not in "".join(capfd.readouterr())


def test_a_folder_left_by_another_attempt_is_kept_quietly(
    empty_folder, monkeypatch, caplog, request
):
    # absl's logger does not hand its records on to the root logger, where caplog listens.
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    request.addfinalizer(lambda: logger.removeHandler(caplog.handler))
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: False)
    (empty_folder / "mnist").mkdir()
    with pytest.raises(DatasetNotFoundError):
        datasets.load("mnist")
    assert [path.name for path in empty_folder.iterdir()] == ["mnist"]
    assert caplog.text == ""


@pytest.mark.parametrize("exists", [True, False])
def test_a_download_that_breaks_off_leaves_nothing(exists, empty_folder, monkeypatch):
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: True)
    folder = empty_folder if exists else empty_folder / "new" / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    downloads = []

    def break_off(self, *, download_dir, **kwargs):
        downloads.append(download_dir)
        os.makedirs(os.path.join(download_dir, "half.tmp"))
        (folder / "mnist").mkdir(parents=True)
        raise requests.ConnectionError("the line is dead\nand more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", break_off)
    with pytest.raises(DatasetNotFoundError) as error:
        datasets.load("mnist")
    assert "(the line is dead)" in one_sentence(error)
    assert str(folder) in str(error.value)
    assert everything_under(empty_folder) == []
    assert not os.path.exists(downloads[0])


def test_a_download_that_breaks_off_keeps_a_folder_that_was_there(empty_folder, monkeypatch):
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: True)
    (empty_folder / "mnist").mkdir()

    def break_off(self, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", break_off)
    with pytest.raises(DatasetNotFoundError, match="disk full"):
        datasets.load("mnist")
    assert [path.name for path in empty_folder.iterdir()] == ["mnist"]


def test_a_download_that_breaks_off_keeps_what_others_made(empty_folder, monkeypatch):
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty_folder / "new"))
    (empty_folder / "mine.txt").write_text("kept")

    def break_off(self, **kwargs):
        # Meanwhile another process puts another data set into a folder that was not there.
        (empty_folder / "new" / "cifar10").mkdir(parents=True)
        raise OSError("disk full")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", break_off)
    with pytest.raises(DatasetNotFoundError, match="disk full"):
        datasets.load("mnist")
    kept = [str(empty_folder / path) for path in ("mine.txt", "new", "new/cifar10")]
    assert everything_under(empty_folder) == kept


def test_a_package_that_tfds_lacks_is_named(empty_folder, monkeypatch):
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: True)

    def lack(self, **kwargs):
        raise ModuleNotFoundError(
            "No module named 'importlib_resources'", name="importlib_resources"
        )

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lack)
    with pytest.raises(DatasetNotFoundError, match="`pip install importlib_resources`"):
        datasets.load("mnist")


def test_a_data_set_that_is_there_needs_no_connection(fake_mnist, monkeypatch):
    monkeypatch.setattr(tfds_reader, "is_reachable", lambda url: pytest.fail("asked"))
    before = everything_under(fake_mnist.root)
    assert len(datasets.load("mnist").test) == 40
    assert everything_under(fake_mnist.root) == before


def cut_within_a_record(folder):
    path = folder.record("train")
    os.truncate(path, path.stat().st_size // 2)


def cut_between_records(folder):
    os.truncate(folder.record("test"), 0)


def change_a_byte(folder):
    content = bytearray(folder.record("train").read_bytes())
    content[len(content) // 2] ^= 255
    folder.record("train").write_bytes(content)


def lose_a_file(folder):
    folder.record("test").unlink()


def lose_the_description(folder):
    folder.info.unlink()


def cut_the_description(folder):
    os.truncate(folder.info, 30)


@pytest.mark.parametrize(
    "damage",
    [
        cut_within_a_record,
        cut_between_records,
        change_a_byte,
        lose_a_file,
        lose_the_description,
        cut_the_description,
    ],
)
def test_damage_is_told_in_one_sentence(damage, fake_mnist):
    damage(fake_mnist)
    with pytest.raises(DatasetCorruptedError) as error:
        datasets.load("mnist")
    text = one_sentence(error)
    for part in ("'mnist'", str(fake_mnist.root / "mnist"), "damaged", "delete that folder"):
        assert part in text
    for part in ("{{", "[Op:", "function_node"):
        assert part not in text
    assert fake_mnist.path.exists()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_any_answer_counts_as_reachable(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert is_reachable(f"http://127.0.0.1:{server.server_port}/x")


def test_a_closed_port_is_not_reachable(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert not is_reachable(f"http://127.0.0.1:{port}/x")


def test_a_hanging_name_lookup_is_given_up(monkeypatch):
    given_up, answers = threading.Event(), []
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: answers.append(given_up.wait(60)))
    assert not is_reachable("https://example.invalid", timeout=0.1)
    assert answers == []
    given_up.set()
