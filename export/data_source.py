"""Where the images of a published model come from, and how a picture file becomes one."""

from typing import Any

from keras_iterconv.datasets import CATALOGUE, TEST_SHARE
from keras_iterconv.runs import FinishedRun

# How a picture file becomes an image, for the card and the metadata.
READING = (
    "upright as its EXIF orientation says; transparent parts over black or white, whichever is "
    "farther from the mean of what is visible; the largest centred part of the aspect ratio, "
    "averaged over boxes or resized bilinearly with antialiasing"
)


def describe_source(run: FinishedRun) -> dict[str, Any]:
    """Return where the images of a run come from, as fields of its entry in the index.

    Returns:
        `data_source`, by which `load_published_data` finds them; nothing for a data set of the
        catalogue.
    """
    if run.settings["dataset"] in CATALOGUE:
        return {}
    source = {
        "folder": run.settings.get("data"),
        "test_share": run.settings.get("test_share", TEST_SHARE),
        "sha256": run.data.get("sha256"),
    }
    return {"data_source": source}


def task_name(dataset: str) -> str:
    """Return the name of the task of a data set."""
    return CATALOGUE[dataset].task if dataset in CATALOGUE else "classes"
