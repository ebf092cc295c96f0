"""Download of a zoo with one model from the Hugging Face Hub."""

import re
from pathlib import Path

from keras_iterconv.zoo.index import CARD, INDEX, ZooError

HUB = "hf://"
_ADDRESS = re.compile(rf"{HUB}(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^@]+))?")


def download_zoo(address: str) -> Path:
    """Return the folder of a zoo on the hub, after its index, cards and .keras files are there.

    The files lie in the hub's own cache folder, below `keras_iterconv`. A file that is there is not
    downloaded again, and without a connection those that are there are used.

    Args:
        address: `hf://owner/name`, or `hf://owner/name@revision` for a branch, a tag or a commit.

    Raises:
        ZooError: The address is invalid, `huggingface_hub` is not installed, or the hub does not
            answer or has no such repository.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ZooError(
            "a model on the hub must be named hf://owner/name or hf://owner/name@revision. "
            f"Received: name={address!r}"
        )
    repository, revision = found["repository"], found["revision"] or "main"
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
        folder = snapshot_download(
            repository,
            revision=revision,
            local_dir=cache / repository / revision.replace("/", "--"),
            allow_patterns=[INDEX, f"*/{CARD}", "*.keras"],
        )
    # Those of the connection have no common class.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ZooError(f"{address} cannot be downloaded: {reason}") from error
    if not (Path(folder) / INDEX).is_file():
        raise ZooError(
            f"{address} holds no model of this package: {INDEX} is missing. "
            "`iterconv publish --hub-folder` writes what to upload"
        )
    return Path(folder)
