"""The script `iterconv`, which has each command of the project as a sub-command."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

HELP = "Train, publish and run networks of iterated residual blocks."


def main() -> None:
    """Run the script."""
    if sys.argv[1:2] == ["predict"]:
        # Handled first, without loading TensorFlow: a prediction needs only ONNX Runtime.
        predict = _load("export.predict").main
        raise SystemExit(predict(sys.argv[2:], "iterconv predict"))
    from iterconv.command_errors import run_command

    run_command(make_app(), "iterconv")


def make_app():
    """Return the Typer app of all commands."""
    from iterconv import command_help

    app = command_help.make_app(HELP)
    commands = (
        _load("training.fit").fit,
        _load("training.launch").launch,
        _load("export.publish").publish,
        _load("export.demo").demo,
        predict,
    )
    for function in commands:
        app.command(cls=command_help.Command)(function)
    app.add_typer(_load("training.reproduce.__main__").app, name="reproduce")
    return app


def predict() -> None:
    """Classify images with an exported model."""
    # Only for the list of commands: `main` runs this command before.


def _load(name: str) -> ModuleType:
    """Return a module of the commands, imported by its name in the wheel or in the checkout."""
    if find_spec(f"iterconv.{name.partition('.')[0]}") is not None:
        return importlib.import_module(f"iterconv.{name}")
    checkout = str(Path(__file__).parents[1])
    if checkout not in sys.path:
        sys.path.insert(0, checkout)
    return importlib.import_module(name)
