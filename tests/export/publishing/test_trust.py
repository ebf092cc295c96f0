"""`python -m export.publish --check`: which files it runs, of whom, and only when."""

import pytest

from export import check


def forbid_saved_models(monkeypatch):
    monkeypatch.setattr("tensorflow.saved_model.load", lambda *a, **k: pytest.fail("it was run"))


def test_a_stranger_s_saved_model_is_not_run(publish_command, zoo, monkeypatch):
    forbid_saved_models(monkeypatch)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "SavedModels, which may read and write any file, need --trust" in screen
    assert "good" in screen


@pytest.mark.parametrize("own", [False, True])
def test_the_zoo_s_own_saved_models_are_run_after_hashes(publish_command, zoo, monkeypatch, own):
    if own:
        monkeypatch.setattr(check, "CHECKOUT_ZOO", zoo)
    (zoo / "small" / "1" / "README.md").write_text("changed")
    forbid_saved_models(monkeypatch)
    monkeypatch.setattr(check, "OnnxClassifier", lambda path: pytest.fail("it was run"))
    arguments = () if own else ("--trust",)
    code, screen, error = publish_command("--check", "--zoo", zoo, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert "README.md is not the file that was published" in error
    assert ".keras, ONNX and SavedModel files are run." in screen


def test_the_help_says_what_a_check_runs(publish_command):
    code, screen, _ = publish_command("--help")
    assert code == 0
    told = " ".join(screen.replace("│", " ").split())
    assert "run its .keras and ONNX files" in told
    assert "may read and write any file" in told


@pytest.mark.parametrize("file", ["assets/secret", "variables/variables.data-00001-of-00002"])
def test_a_saved_model_with_files_that_are_not_verified_is_not_run(
    publish_command, zoo, monkeypatch, file
):
    planted = zoo / "small" / "1" / "saved_model" / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text("planted")
    forbid_saved_models(monkeypatch)
    code, _, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert (code, error.count("\n")) == (2, 1)
    assert f"{file}' is not in the index" in error
