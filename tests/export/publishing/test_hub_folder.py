"""A folder for the Hugging Face Hub: what its tools read in it, and what is refused."""

import json
import re
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import pytest

import keras_iterconv as ki
from export import hub_folder
from export.hub_card import make_front_matter
from tests.support.hub_server import serve_hub

NAMED = ["--hub-folder", "x", "--hub-name", "a/b", "--name", "small"]
ZOO = Path(__file__).parents[3] / "saved_models"


@pytest.fixture
def written(zoo, tmp_path):
    """Return the folder of the published model."""
    hub_folder.write_hub_folder(zoo, "small", tmp_path / "hub", "me/net")
    return tmp_path / "hub"


def test_the_hub_s_own_reader_finds_the_facts(written):
    card = huggingface_hub.ModelCard.load(written / "README.md")
    facts = card.data
    assert (facts.library_name, facts.license) == ("keras-iterconv", "apache-2.0")
    assert facts.pipeline_tag == "image-classification"
    assert {"keras", "onnx", "adaptive-depth", "nais_mnist"} <= set(facts.tags)
    assert facts.metrics == ["accuracy"]
    (found,) = facts.eval_results
    index = ki.zoo.index.read_index(written)
    result = index["models"]["small"]["result"]
    assert (found.metric_type, found.metric_value) == ("accuracy", result["test_accuracy"])
    assert found.dataset_name == "digits"
    # What is after the head is the card.
    assert card.text.lstrip().startswith("# small\n")


def test_all_that_the_card_shows_is_in_the_folder(written):
    text = (written / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 2
    assert all((written / picture).is_file() for picture in pictures)
    assert 'model = ki.load_pretrained("hf://me/net")\n' in text


def test_what_was_uploaded_is_loaded(written, tmp_path, zoo):
    with serve_hub({"me/net": written}, tmp_path / "cache"):
        model = ki.load_pretrained("hf://me/net")
    expected = ki.load_pretrained("small", zoo=zoo)
    assert model.card == expected.card
    assert model.class_names == expected.class_names


def test_the_command_copies_a_published_model(publish_command, zoo, tmp_path):
    target = tmp_path / "below" / "hub"
    options = ["--name", "small", "--zoo", zoo, "--hub-folder", target, "--hub-name", "me/net"]
    code, screen, errors = publish_command(*options)
    assert (code, errors) == (0, "")
    assert f"{target} is ready for upload to me/net" in screen
    assert {path.name for path in target.iterdir()} == {"README.md", "index.json", "small"}
    assert publish_command("--check", "--zoo", target)[0] == 0
    # A second time, it is kept as it is.
    code, _, errors = publish_command(*options)
    assert code == 2
    assert f"--hub-folder must be a new or an empty folder: {target}" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hub-folder", "x"], "--hub-folder and --hub-name must be given together"),
        (["--hub-folder", "x", "--hub-name", "a/b"], "with a RUN, or with --name of a published"),
        (["--hub-folder", "x", "--hub-name", "a", "--name", "small"], "must be OWNER/NAME"),
        (
            ["--hub-folder", "x", "--hub-name", "a/b", "--name", "no"],
            "--name must be one of small: no",
        ),
        ([*NAMED, "--quantize", "int8"], "--quantize must be used with a RUN"),
        ([*NAMED, "--inputs", "fixed"], "--inputs must be used with a RUN"),
        ([*NAMED, "--mean-updates", "9"], "without --hub-folder, or with a RUN"),
        (["--check", "--hub-folder", "x", "--hub-name", "a/b"], "must be used with a RUN, or"),
    ],
)
def test_options_that_do_not_fit_are_refused(publish_command, zoo, options, message, tmp_path):
    code, _, errors = publish_command(*options, "--zoo", zoo)
    assert code == 2
    assert message in errors
    assert not Path("x").exists()


def test_a_changed_file_leaves_no_folder(zoo, tmp_path):
    (file,) = zoo.rglob("*.onnx")
    file.write_bytes(b"changed")
    with pytest.raises(ki.ZooError, match="is not the file that was published"):
        hub_folder.write_hub_folder(zoo, "small", tmp_path / "hub", "me/net")
    assert not (tmp_path / "hub").exists()
    assert not list(tmp_path.glob(".partial-*"))


def test_a_card_of_an_older_version_gets_its_facts(zoo, tmp_path):
    (card,) = (zoo / "small").rglob("README.md")
    text = card.read_text(encoding="utf-8")
    head, _, rest = text.removeprefix("---\n").partition("---\n")
    assert "library_name" in head
    card.write_text(rest, encoding="utf-8")
    index = json.loads((zoo / "index.json").read_text(encoding="utf-8"))
    facts = {"bytes": card.stat().st_size, "sha256": sha256(card.read_bytes()).hexdigest()}
    files = index["models"]["small"]["files"]
    files[card.relative_to(zoo).as_posix()] = facts
    (zoo / "index.json").write_text(json.dumps(index), encoding="utf-8")

    hub_folder.write_hub_folder(zoo, "small", tmp_path / "hub", "me/net")
    found = huggingface_hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert found.data.library_name == "keras-iterconv"
    assert found.text.lstrip().startswith("# small\n")


def test_a_task_that_the_hub_does_not_know_has_no_name_there():
    entry = ki.zoo.index.read_index(ZOO)["models"]["deep_thinking_prefix_sums"]
    text = make_front_matter("prefix_sums", entry, onnx=True)
    facts = huggingface_hub.ModelCard(text + "# a card\n").data
    assert facts.pipeline_tag is None
    assert facts.eval_results[0].metric_value == entry["result"]["test_accuracy"]


def test_a_data_set_of_the_hub_has_its_name_there():
    entry = ki.zoo.index.read_index(ZOO)["models"]["nais_mnist_adaptive"]
    facts = huggingface_hub.ModelCard(
        make_front_matter("net", entry, onnx=True) + "# a card\n"
    ).data
    assert facts.datasets == ["ylecun/mnist"]
