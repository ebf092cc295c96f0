"""Pages that are made from other sources: command lines, trained nets, contributing, changelog."""

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

# Only a build needs MkDocs; the tests read the pages without it.
if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Write the version and the date of the last commit under each page."""
    source = (ROOT / "keras_iterconv/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.*)"', source)[1]
    config.copyright = f"keras_iterconv {version}, {_date()}. Apache-2.0."
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {
        "commands.md": commands_page(),
        "trained_nets.md": trained_nets_page(),
        "contributing.md": root_page("CONTRIBUTING.md"),
        "changelog.md": root_page("CHANGELOG.md"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for picture in sorted((ROOT / "saved_models").rglob("*.png")):
        name = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to the zoo's pictures lead to their copies."""
    return markdown.replace("](../saved_models/", "](saved_models/")


def _date() -> str:
    """Return the date of the last commit, or, outside a repository, today's."""
    command = ["git", "log", "-1", "--format=%cs"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() or datetime.date.today().isoformat()


def root_page(name: str) -> str:
    """Return a page of the repository's root, with its links as from the folder of the pages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def trained_nets_page() -> str:
    """Return the table of the zoo's index, a row for each model."""
    index = json.loads((ROOT / "saved_models/index.json").read_text(encoding="utf-8"))
    rows = []
    for name, entry in index["models"].items():
        result = entry["result"]
        size = sum(facts["bytes"] for facts in entry["files"].values()) / 1e6
        rows.append(
            (
                f"`{name}`",
                f"`{entry['architecture']}`",
                entry["dataset"],
                f"{result['test_accuracy']:.2%}",
                f"{result['mean_depth']:.1f}",
                result["processing_depth"],
                f"{entry['parameters']:,}",
                f"{size:.1f}",
            )
        )
    head = (
        *("name", "architecture", "data set", "test accuracy"),
        *("updates, mean", "updates, at most", "parameters", "MB"),
    )
    return (
        "---\nhide: [toc]\n---\n\n# Trained nets\n\n"
        "`ki.load_pretrained(name)` loads one, verified against the zoo's index. The accuracy and"
        " the mean number of updates for an image or a sequence are those of the test part; the"
        " size is that of all formats together. A click on a column's title sorts the table."
        " [Export, and the zoo](export.md) has the files and the commands.\n\n"
        '<div class="sortable" markdown>\n\n' + table(head, rows) + "\n</div>\n"
    )


def commands_page() -> str:
    """Return the options of all commands, as their own help describes them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import typer

    from iterconv.cli import make_app

    app = typer.main.get_command(make_app())
    text = (
        "# Command lines\n\n"
        "Each command is a sub-command of the script `iterconv`, which the package installs. In a"
        " checkout `python -m training.fit` is `iterconv fit`, `python -m export.publish` is"
        " `iterconv publish`, and so on. `--help` prints what stands here. Guides:"
        " [training](training.md), [several devices](several_devices.md),"
        " [export and the zoo](export.md), [reproduction](reproduction.md).\n"
    )
    for name, command in app.commands.items():
        text += (
            _predict_section() if name == "predict" else _section(command, f"iterconv {name}", 2)
        )
    return text


def _section(command, path: str, level: int) -> str:
    """Return the section of a Typer command, with those of its sub-commands."""
    context = command.make_context(path, [], resilient_parsing=True)
    text = f"\n{'#' * level} {path}\n\n{_prose(command.help)}\n"
    groups: dict[str, list] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None)
        if record is not None and "--help" not in record[0]:
            groups.setdefault(panel or "Options", []).append(record)
    for title, records in groups.items():
        text += f"\n**{title}**\n\n" + _options(records)
    for name, sub in getattr(command, "commands", {}).items():
        text += _section(sub, f"{path} {name}", level + 1)
    return text


def _predict_section() -> str:
    """Return the section of `predict`, which runs without Typer where only a runtime is there."""
    from export.predict import _parser

    parser = _parser("iterconv predict")
    records = [
        (", ".join(action.option_strings) or (action.metavar or action.dest), action.help or "")
        for action in parser._actions
        if "--help" not in action.option_strings
    ]
    return f"\n## iterconv predict\n\n{_prose(parser.description)}\n\n" + _options(records)


def _prose(text: str | None) -> str:
    return re.sub(r"(?<![\w`])(--[a-z-]+)", r"`\1`", (text or "").replace("\b", "").strip())


def _options(records: Iterable[tuple[str, str]]) -> str:
    def cell(text: str) -> str:
        # Typer puts parentheses around a default that is given as text.
        text = re.sub(r"\[default: \((.*)\)\]$", r"[default: \1]", " ".join(text.split()))
        return _prose(text).replace("|", "\\|").replace("<", "&lt;")

    rows = [
        (f"`{' '.join(name.split())}`".replace("|", "\\|"), cell(help)) for name, help in records
    ]
    return table(("option", "meaning"), rows)
