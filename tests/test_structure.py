"""The rooms of the house: who imports whom, and what files are called."""

import ast
import itertools
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("keras_iterconv", "iterconv", "training", "export", "benchmarks")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))
}


def imports(name: str, at_once: bool) -> set[str]:
    """Return the modules of ours that a module imports.

    Args:
        name: The module.
        at_once: Whether to leave out what is imported later, in functions, or for types alone.
    """
    path, found = MODULES[name], set()
    base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]

    def look(node):
        if at_once and isinstance(node, (ast.FunctionDef, ast.Lambda)):
            return
        if at_once and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = base[: len(base) + 1 - node.level] if node.level else []
            package = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{package}.{alias.name}"
                found.add(inner if inner in MODULES else package)
        for child in ast.iter_child_nodes(node):
            look(child)

    look(ast.parse(path.read_text(encoding="utf-8")))
    return {other for other in found if other in MODULES and other != name}


def test_the_modules_are_found():
    # One of each way to write an import: were they missed, nothing below could fail.
    assert "keras_iterconv.layers" in imports("keras_iterconv", True)
    assert "training.settings" in imports("training.session", True)
    assert "training.session" not in imports("training.fit", True)
    assert "training.session" in imports("training.fit", False)


def test_no_circle():
    graph = {name: imports(name, True) for name in MODULES}
    # A package is whole only when its `__init__` is; its own parts name it by their places.
    for name, others in graph.items():
        others -= set(itertools.accumulate(name.split("."), "{}.{}".format))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# What nothing in a room may import, at no time.
FORBIDDEN = [
    ("keras_iterconv", ("iterconv", "training", "export", "benchmarks")),
    ("training", ("export", "benchmarks")),
    ("export", ("training", "benchmarks")),
    # Processes of PyTorch import it, and TensorFlow is not for them.
    ("benchmarks.harness", ("keras_iterconv", "training", "export")),
    ("keras_iterconv.unrolling", ("keras_iterconv.layers",)),
    (
        "keras_iterconv.layers",
        tuple(
            f"keras_iterconv.{room}"
            for room in ("certificates", "depth", "models", "indices", "exporting", "zoo")
        ),
    ),
    *(
        (f"keras_iterconv.{low}", (f"keras_iterconv.{high}",))
        for low, high in itertools.pairwise(
            ("_support", "unrolling", "stop", "layers", "trainer", "models", "exporting", "zoo")
        )
    ),
]


@pytest.mark.parametrize(("room", "others"), FORBIDDEN)
def test_arrows_point_one_way(room, others):
    def lies_in(name, place):
        return name == place or name.startswith(f"{place}.")

    wrong = [
        f"{name} imports {other}"
        for name in MODULES
        if lies_in(name, room)
        for other in imports(name, False)
        if any(lies_in(other, place) for place in others)
    ]
    assert not wrong


def test_the_core_knows_no_keras():
    for name, path in MODULES.items():
        if name.startswith("keras_iterconv.unrolling"):
            assert "import keras\n" not in path.read_text(), name


def test_each_file_has_a_name_of_its_own():
    names = Counter(path.name for path in MODULES.values())
    shared = {name for name, count in names.items() if count > 1}
    assert shared <= {"__init__.py", "__main__.py"}


def test_what_keras_writes_into_files_is_in_the_library():
    """A file of a run must load in a program that imports nothing but the library."""
    registering = [
        name
        for name, path in MODULES.items()
        if "register_keras_serializable" in path.read_text(encoding="utf-8")
    ]
    assert "keras_iterconv.triangle_schedule" in registering
    assert [name for name in registering if name.startswith(("training.", "export."))] == []
