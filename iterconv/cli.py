"""The script `iterconv`: each command of the project as a sub-command."""

import typer

from iterconv.training.errors import run_command
from iterconv.training.fit import fit
from iterconv.training.reproduce.__main__ import app as reproduce

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Networks that compute by iteration: train, measure and export them.",
)
app.command("fit")(fit)
app.add_typer(reproduce, name="reproduce")


def main() -> None:
    """Run the script."""
    run_command(app, "iterconv")
