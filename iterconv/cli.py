"""The script `iterconv`: each command of the project as a sub-command."""

import sys

HELP = "Networks that compute by iteration: train, measure and export them."


def main() -> None:
    """Run the script."""
    if sys.argv[1:2] == ["predict"]:
        # Without TensorFlow, which the others load: a prediction needs ONNX Runtime alone.
        from iterconv.export.predict import main as predict

        raise SystemExit(predict(sys.argv[2:]))
    from iterconv.training.errors import run_command

    run_command(make_app(), "iterconv")


def make_app():
    """Return the command line of all commands."""
    from iterconv.export.publish import publish
    from iterconv.training import help_layout
    from iterconv.training.fit import fit
    from iterconv.training.reproduce.__main__ import app as reproduce

    app = help_layout.make_app(HELP)
    for function in (fit, publish, predict):
        app.command(cls=help_layout.Command)(function)
    app.add_typer(reproduce, name="reproduce")
    return app


def predict() -> None:
    """Classify pictures with an exported net."""
    # For the list of commands: `main` has taken this one before.
