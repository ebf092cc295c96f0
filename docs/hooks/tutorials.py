"""The tutorials: notebooks in Markdown, as Jupytext reads them, that each build runs and shows.

`python docs/hooks/tutorials.py` runs all, or those that it is given, and prints their times. A
notebook that ran is kept in `.cache/`, until it, the code of the repository or a package changes.
"""

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only a build needs MkDocs; the tests read the pages without it.
if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/tutorials"
CACHE = ROOT / ".cache/tutorials"
# What a tutorial's results depend on, beside itself.
CODE = ("keras_iterconv", "iterconv", "training", "export")
PACKAGES = ("tensorflow", "keras", "numpy", "onnxruntime", "ai-edge-litert", "scikit-learn")
# Seconds of a cell; one that takes so long hangs.
LIMIT = 300
FOOT = (
    "\n\n---\n\n*This page is a notebook: [download it, with its outputs]({name}.ipynb), or"
    " [run it yourself](index.md#run-them-yourself).*\n"
)


def tutorials() -> list[Path]:
    """Return the notebooks, in the order of their names."""
    return sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")


def _state_of_code() -> bytes:
    state = hashlib.sha256((ROOT / "saved_models/index.json").read_bytes())
    state.update(Path(__file__).read_bytes() + sys.version.encode())
    for package in PACKAGES:
        state.update(f"{package} {importlib.metadata.version(package)}".encode())
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            state.update(path.read_bytes())
    return state.digest()


def executed(path: Path) -> dict[str, Any]:
    """Return a notebook with its outputs, from the cache if nothing has changed.

    Args:
        path: The notebook's text.

    Returns:
        The notebook, as in an `.ipynb` file.
    """
    key = hashlib.sha256(path.read_bytes() + _state_of_code()).hexdigest()
    kept = CACHE / f"{path.stem}.ipynb"
    if kept.exists():
        notebook = json.loads(kept.read_text(encoding="utf-8"))
        if notebook["metadata"].get("source") == key:
            return notebook
    notebook = _execute(path)
    notebook["metadata"]["source"] = key
    CACHE.mkdir(parents=True, exist_ok=True)
    # In one step: a build that is stopped leaves no half of a file.
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(notebook), encoding="utf-8")
    partial.replace(kept)
    return notebook


def _execute(path: Path) -> dict[str, Any]:
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(path)
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "ORT_DISABLE_TELEMETRY": "1",
        # Nothing answers there: a tutorial needs no network.
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
        # Lines of commands are as long as in a terminal of this width.
        "COLUMNS": "100",
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=LIMIT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            # Figures in twice the resolution.
            extra_arguments=["--InlineBackend.figure_formats=retina"],
        ).execute(env={**os.environ, **environment})
    print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    # Times and process numbers would differ from build to build.
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return json.loads(json.dumps(notebook))


def as_markdown(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page.

    A code cell with the metadata `figure` is folded; what it draws has that text as its
    description.

    Args:
        notebook: The notebook, with its outputs.
        name: The start of the names of its pictures.

    Returns:
        The page, and the PNG files of its pictures by name.
    """
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        figure = cell["metadata"].get("figure")
        parts.append(_code(source, folded=figure is not None))
        if text := _printed(cell["outputs"]):
            parts.append(f"```{{ .text .output }}\n{text}\n```")
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(png))
                width = output["metadata"].get("image/png", {}).get("width", 640)
                parts.append(f"![{figure or ''}]({picture}){{ width={width} }}")
    return "\n\n".join(parts), pictures


def _code(source: str, folded: bool) -> str:
    language, source = (
        ("bash", source.partition("\n")[2]) if source.startswith("%%bash") else ("python", source)
    )
    fenced = f"```{language}\n{source}\n```"
    if not folded:
        return fenced
    return '??? note "Code of the figure"\n\n' + re.sub(r"^(?=.)", "    ", fenced, flags=re.M)


def _printed(outputs: list[dict[str, Any]]) -> str:
    """Return what a cell printed, without warnings, and its value unless that is a picture."""
    text = ""
    for output in outputs:
        data = output.get("data", {})
        if output.get("name") != "stderr" and "image/png" not in data:
            text += "".join(output.get("text") or data.get("text/plain", ""))
    lines = [line.rstrip() for line in text.split("\n")]
    # In a notebook TensorFlow prints its own lines among the results.
    return "\n".join(
        line for line in lines if not re.match("(INFO|WARNING):tensorflow:", line)
    ).strip("\n")


_pages: dict[str, str] = {}


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Run the notebooks, and add their pictures and files.

    Args:
        files: MkDocs's files.
        config: MkDocs's settings.
    """
    from mkdocs.structure.files import File

    for path in tutorials():
        notebook = executed(path)
        text, pictures = as_markdown(notebook, path.stem)
        _pages[f"tutorials/{path.name}"] = text + FOOT.format(name=path.stem)
        contents = {**pictures, f"{path.stem}.ipynb": json.dumps(notebook, indent=1)}
        for name, content in contents.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Return a tutorial with its outputs, and any other page as it is.

    Args:
        markdown: The page.
        page: MkDocs's page.
    """
    return _pages.get(page.file.src_uri, markdown)


if __name__ == "__main__":
    chosen = {Path(argument).stem for argument in sys.argv[1:]}
    for tutorial in tutorials():
        if not chosen or tutorial.stem in chosen:
            executed(tutorial)
