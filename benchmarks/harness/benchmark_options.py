"""Options that all commands with candidates share."""

import enum
from typing import Annotated

import typer

from benchmarks.harness.devices import check_device


class Device(enum.StrEnum):
    """Where candidates run."""

    CPU = "cpu"
    GPU = "gpu"


RoundsOption = Annotated[int, typer.Option(help="Number of timed rounds.", min=1)]
DeviceOption = Annotated[
    Device, typer.Option(help="Device of the candidates.", callback=check_device)
]
OutputOption = Annotated[str | None, typer.Option(help="JSON file to write.")]
BatchSizesOption = Annotated[
    list[int] | None,
    typer.Option("--batch-size", help="Images in a batch, repeatable.", show_default="1 and 64"),
]
