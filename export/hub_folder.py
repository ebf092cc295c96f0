"""A folder for the Hugging Face Hub: a zoo of one model, with its card at the top."""

import re
import shutil
from pathlib import Path
from typing import Any

from iterconv.command_errors import UserError
from keras_iterconv._support.files import replacing_folder, write_json
from keras_iterconv.zoo.hub import HUB
from keras_iterconv.zoo.index import CARD, INDEX, find_zoo, read_entry, read_index, verified_path

from .hub_card import make_front_matter
from .zoo_folder import CURVES, DEPTH_FIGURE

_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_LOAD = re.compile(r"^model = ki\.load_pretrained\(.*$", re.MULTILINE)


def check_hub_folder(folder: Path, repository: str) -> None:
    """Raise `UserError` where a folder has files, or a repository's name is invalid.

    Args:
        folder: The folder to write.
        repository: `owner/name` on the hub.
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise UserError(f"--hub-name must be OWNER/NAME, as on the hub: {repository}")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError(f"--hub-folder must be a new or an empty folder: {folder}")


def write_hub_folder(zoo: Path, name: str, folder: Path, repository: str) -> None:
    """Copy a published model into a new folder, ready for `huggingface_hub.upload_folder`.

    `keras_iterconv.load_pretrained("hf://owner/name")` reads what was uploaded. The folder appears
    when it is complete.

    Args:
        zoo: The folder of the zoo.
        name: The model's name in it.
        folder: The folder to write; new or empty.
        repository: `owner/name` on the hub, for the example in the card.

    Raises:
        UserError: The folder has files or cannot be written, or the zoo has no such model.
        ZooError: The zoo is invalid, or a file differs from the published one.
    """
    check_hub_folder(folder, repository)
    names = read_index(find_zoo(zoo))["models"]
    if name not in names:
        raise UserError(f"--name must be one of {', '.join(names)}: {name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as staged:

            def copy(entry: dict[str, Any]) -> None:
                shutil.rmtree(staged, ignore_errors=True)
                _copy(zoo, name, entry, staged, repository)

            read_entry(zoo, name, copy)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error


def _copy(zoo: Path, name: str, entry: dict[str, Any], staged: Path, repository: str) -> None:
    """Write the files, the index and the card of one model."""
    for file, facts in entry["files"].items():
        path = verified_path(zoo, name, file, facts)
        (staged / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, staged / file)
    write_json(staged / INDEX, {"version": 1, "models": {name: entry}})
    (card,) = (file for file in entry["files"] if file.endswith(f"/{CARD}"))
    text = (staged / card).read_text(encoding="utf-8")
    for picture in (CURVES, DEPTH_FIGURE):
        text = text.replace(f"]({picture})", f"]({Path(card).with_name(picture).as_posix()})")
    text = _LOAD.sub(f'model = ki.load_pretrained("{HUB}{repository}")', text)
    if not text.startswith("---\n"):
        # Published by a version whose cards had none.
        text = make_front_matter(name, entry, bool(entry["operators"])) + text
    (staged / CARD).write_text(text, encoding="utf-8")
