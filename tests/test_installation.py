"""What an installation, editable or not, puts on everyone's path."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
# Their names are too common for the top of an environment.
FOLDERS = ("tests", "docs", "benchmarks", "training", "export", "saved_models")
LOOK = """
import importlib.util, json, sys

def places(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    return list(spec.submodule_search_locations or [spec.origin])

print(json.dumps({name: places(name) for name in sys.argv[1:]}))
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Run Python in a folder outside of the checkout, as a user of the installed package does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    return run


def test_only_the_packages_are_importable_elsewhere(elsewhere):
    found = json.loads(elsewhere("-c", LOOK, "keras_iterconv", "iterconv", *FOLDERS))
    assert found.pop("keras_iterconv")
    assert found.pop("iterconv")
    ours = {name for name, places in found.items() if str(CHECKOUT / name) in places}
    assert not ours


def test_the_commands_are_found_elsewhere(elsewhere):
    """Under one name: each class of an error exists once."""
    code = (
        "import sys, iterconv.cli; iterconv.cli.make_app(); "
        "print(*sorted(name for name in sys.modules if name.endswith('export.publish')))"
    )
    assert elsewhere("-c", code) == "export.publish\n"


def test_workers_find_their_command_elsewhere(elsewhere):
    """The first of them prints to the screen: here the help, since one cannot train alone."""
    assert "--strategy" in elsewhere(
        "-m", "iterconv", "launch", "--workers", "1", "--", "fit", "--help"
    )


def test_there_is_a_tensorflow_for_each_python_that_is_promised():
    versions = metadata.metadata("keras-iterconv")["Requires-Python"].split(",")
    assert sorted(versions) == ["<3.14", ">=3.11"]
    classifiers = metadata.metadata("tensorflow").get_all("Classifier")
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
