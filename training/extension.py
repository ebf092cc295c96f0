"""A run that is continued with a new number of epochs."""

import dataclasses
from typing import Any

from rich.console import Console

from .run_folder import RunFolder
from .settings import Settings


def extend(
    folder: RunFolder, config: dict[str, Any], wanted: Settings, done: int, console: Console
) -> dict[str, Any]:
    """Change a run's number of epochs, and return the new content of `config.json`.

    An earlier result stays until the new one is written.
    """
    before = config["settings"]
    extensions = [*config.get("extensions", []), {"epochs": before.epochs, "done": done}]
    extended = {**config, "settings": dataclasses.asdict(wanted), "extensions": extensions}
    folder.write_json(folder.config, extended)
    stretched = (
        ""
        if wanted.schedule == "constant" or done == wanted.epochs
        else (
            f"; the {wanted.schedule} schedule of the learning rate is stretched over all of them"
        )
    )
    console.print(
        f"{done} of {wanted.epochs} epochs are finished, {before.epochs} were planned{stretched}",
        soft_wrap=True,
    )
    return extended
