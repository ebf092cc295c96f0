"""The script `iterconv`: each command of the project as a sub-command."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

HELP = "Networks that compute by iteration: train, measure and export them."


def main() -> None:
    """Run the script."""
    if sys.argv[1:2] == ["predict"]:
        # Without TensorFlow, which the others load: a prediction needs ONNX Runtime alone.
        predict = _load("export.predict").main
        raise SystemExit(predict(sys.argv[2:], "iterconv predict"))
    from iterconv.command_errors import run_command

    run_command(make_app(), "iterconv")


def make_app():
    """Return the command line of all commands."""
    from iterconv import command_help

    app = command_help.make_app(HELP)
    for function in (_load("training.fit").fit, _load("export.publish").publish, predict):
        app.command(cls=command_help.Command)(function)
    app.add_typer(_load("training.reproduce.__main__").app, name="reproduce")
    return app


def predict() -> None:
    """Classify pictures with an exported net."""
    # For the list of commands: `main` has taken this one before.


def _load(name: str):
    """Import a module of the commands, by the one name that it has here."""
    if find_spec(f"iterconv.{name.partition('.')[0]}") is not None:
        return importlib.import_module(f"iterconv.{name}")
    checkout = str(Path(__file__).parents[1])
    if checkout not in sys.path:
        sys.path.insert(0, checkout)
    return importlib.import_module(name)
