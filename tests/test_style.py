"""The style of the code: ruff, mypy, annotations, docstrings and the length of functions."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("keras_iterconv", "iterconv", "training", "export", "benchmarks")
LONGEST = 60
PYTHON = "{}.{}".format(*sys.version_info)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache"),
        # NumPy's types are written for the Python that runs, which may be newer than the oldest.
        ("mypy", "--python-version", PYTHON, "--cache-dir"),
    ],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_the_checkout_passes(command, tmp_path):
    cache = [str(tmp_path)] if command[-1] == "--cache-dir" else []
    run = subprocess.run(
        [sys.executable, "-m", *command, *cache],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr


class Found(NamedTuple):
    """A function or a class of the rooms.

    Attributes:
        place: `file:line name`.
        node: Its syntax tree.
        bases: Names of the bases of the class that a method is defined in; None outside a class.
        public: Whether its name and all names around it are public, and it is not in a function.
    """

    place: str
    node: ast.FunctionDef | ast.ClassDef
    bases: list[str] | None
    public: bool


def definitions(path: Path) -> Iterator[Found]:
    """Yield the functions and classes of a file, also those inside others."""
    name = path.relative_to(ROOT).as_posix()

    def look(node, prefix, bases, public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inside = public and (not child.name.startswith("_") or child.name == "__init__")
                full = f"{prefix}{child.name}"
                yield Found(f"{name}:{child.lineno} {full}", child, bases, inside)
                is_class = isinstance(child, ast.ClassDef)
                inner = [ast.unparse(base) for base in child.bases] if is_class else None
                yield from look(child, f"{full}.", inner, inside and is_class)
            else:
                yield from look(child, prefix, bases, public)

    tree = ast.parse(path.read_text(encoding="utf-8"))
    private = any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    yield from look(tree, "", None, not private or "_support" in path.parts)


DEFINITIONS = [
    found
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    for found in definitions(path)
]
PUBLIC = [
    found for found in DEFINITIONS if found.public and found.place.startswith("keras_iterconv/")
]


def test_definitions_are_found():
    places = {found.place.split(" ")[1] for found in PUBLIC}
    assert {"create_model", "IterativeModel", "IterativeModel.fit", "NAISDense.__init__"} <= places
    assert "IterativeModel._with_callbacks" not in places


def missing_annotations(node: ast.FunctionDef) -> list[str]:
    """Return the arguments without an annotation, and `return`."""
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    names = [
        argument.arg
        for argument in arguments
        if argument and argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    return names + ["return"] * (node.returns is None and node.name != "__init__")


def test_public_functions_are_annotated():
    functions = [found for found in PUBLIC if isinstance(found.node, ast.FunctionDef)]
    missing = {found.place: missing_annotations(found.node) for found in functions}
    assert not {place: names for place, names in missing.items() if names}


def test_public_definitions_have_docstrings():
    """Methods of a class with a base may override: their base has the docstring."""
    missing = [
        found.place
        for found in PUBLIC
        if not ast.get_docstring(found.node)
        and not (isinstance(found.node, ast.FunctionDef) and found.bases)
        and found.node.name != "__init__"
    ]
    assert not missing


def lines_of_body(node: ast.FunctionDef) -> int:
    """Return the number of lines of a function's body, without signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_no_function_is_long():
    functions = [found for found in DEFINITIONS if isinstance(found.node, ast.FunctionDef)]
    lengths = {found.place: lines_of_body(found.node) for found in functions}
    assert max(lengths.values()) > LONGEST / 2, "the lengths are not measured"
    assert not {place: length for place, length in lengths.items() if length > LONGEST}


STARTERS = ("subprocess.run", "subprocess.check_output", "subprocess.Popen", "os.fork")


def test_no_test_waits_for_a_process_without_an_end():
    """`process` of `tests.support.processes` ends those that `subprocess.run` cannot."""
    endless = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in STARTERS
        and "timeout" not in {keyword.arg for keyword in node.keywords}
        and path.name != "processes.py"
    ]
    assert not endless
