"""The script `iterconv`: each command of the project as a sub-command."""

import typer

from iterconv.training.errors import run_command
from iterconv.training.fit import fit

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Networks that compute by iteration: train, measure and export them.",
)
app.command("fit")(fit)


@app.callback()
def _commands() -> None:
    """Keep `fit` a sub-command while it is the only one."""


def main() -> None:
    """Run the script."""
    run_command(app, "iterconv")
