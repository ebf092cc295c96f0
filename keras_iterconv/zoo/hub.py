"""Download of a model from the Hugging Face Hub, where a repository is a zoo with one model."""

import glob
import re
from pathlib import Path
from urllib.parse import quote

from keras_iterconv.zoo.index import CARD, INDEX, ZooError, read_index

HUB = "hf://"
# The hub itself checks the name of the repository. The revision also names a folder.
_ADDRESS = re.compile(
    rf"{HUB}(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>(?!.*\.\.)[\w.+/-]+))?", re.ASCII
)


def download_model(address: str) -> tuple[Path, str]:
    """Return the folder of a zoo on the hub and the name of its model, after they are there.

    The index is read before anything else is downloaded, and then its model's .keras file and card
    alone. The files lie in the hub's own cache folder, below `keras_iterconv`. A file that is there
    is not downloaded again, and without a connection those that are there are used.

    Args:
        address: `hf://owner/name`, or `hf://owner/name@revision` for a branch, a tag or a commit.

    Raises:
        ZooError: The address is invalid, `huggingface_hub` is not installed, the hub does not
            answer or has no such repository, or the repository is not a zoo with one model.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ZooError(
            "a model on the hub must be named hf://owner/name or hf://owner/name@revision. "
            f"Received: name={address!r}"
        )
    repository, revision = found["repository"], found["revision"] or "main"
    folder = _download(address, repository, revision, [INDEX])
    if not (folder / INDEX).is_file():
        raise ZooError(
            f"{address} holds no model of this package: {INDEX} is missing. "
            "`iterconv publish --hub-folder` writes what to upload"
        )
    models = read_index(folder)["models"]
    if len(models) != 1:
        raise ZooError(f"{address} must hold one model; its index names {list(models)}")
    ((name, entry),) = models.items()
    wanted = [file for file in entry["files"] if file.endswith((".keras", f"/{CARD}"))]
    _download(address, repository, revision, [INDEX, *map(glob.escape, wanted)])
    return folder, name


def _download(address: str, repository: str, revision: str, patterns: list[str]) -> Path:
    """Return the folder of a repository, after the files of some patterns are there."""
    try:
        # Imported here: it is in an extra.
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise ZooError(f'{error}: {address} needs `pip install "keras-iterconv[hub]"`') from error
    try:
        validate_repo_id(repository)
        cache = Path(constants.HF_HOME, "keras_iterconv")
        # A folder of regular files; the files of the hub's other form are links.
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                local_dir=cache / repository / quote(revision, safe=""),
                allow_patterns=patterns,
            )
        )
    # Those of the connection have no common class.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ZooError(f"{address} cannot be downloaded: {reason}") from error
