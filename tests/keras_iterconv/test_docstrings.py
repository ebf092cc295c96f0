"""Docstrings of the public names: complete, true to the signatures, with examples that run."""

import doctest
import inspect
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki

# What the examples may use without an import; the docstring of the package says so.
GIVEN = {"ki": ki, "keras": keras, "np": np, "tf": tf}
PARSER = doctest.DocTestParser()
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_names():
    """Return all public classes and functions by their paths from `keras_iterconv`."""
    found = {}
    for name in ki.__all__:
        value = getattr(ki, name)
        if not isinstance(value, types.ModuleType):
            found[name] = value
            continue
        own = [n for n, v in vars(value).items() if getattr(v, "__module__", "") == value.__name__]
        names = getattr(value, "__all__", [n for n in own if not n.startswith("_")])
        found |= {f"{name}.{inner}": getattr(value, inner) for inner in names}
    return {name: value for name, value in found.items() if callable(value)}


def public_methods(name, owner):
    """Return the methods of a class, by their paths, that it defines itself."""
    members = {
        f"{name}.{key}": getattr(value, "__func__", value)
        for key, value in vars(owner).items()
        if not key.startswith("_") and not hasattr(value, "__wrapped__")
    }
    return {path: value for path, value in members.items() if inspect.isfunction(value)}


NAMES = public_names()
CLASSES = {name: value for name, value in NAMES.items() if isinstance(value, type)}
METHODS = {p: m for name, value in CLASSES.items() for p, m in public_methods(name, value).items()}
# A method without a docstring overrides one of a base that has it; `test_style.py` sees to it.
DOCUMENTED = NAMES | {path: method for path, method in METHODS.items() if method.__doc__}
EXAMPLES = [path for path, value in DOCUMENTED.items() if ">>>" in value.__doc__]
SECTIONS = ["Args", "Attributes", "Call arguments", "Returns", "Warns", "Raises"]
SECTIONS += ["Example", "Reference", "See also"]
# Python and Keras make their signatures.
WITHOUT_PARAMETERS = ("unrolling.Status", "IterativeModel")


def section(value, title):
    """Return the text of a section of a docstring, without its indent; empty without one."""
    lines = inspect.cleandoc(value.__doc__).splitlines()
    if f"{title}:" not in lines:
        return ""
    following = lines[lines.index(f"{title}:") + 1 :]
    end = next((i for i, line in enumerate(following) if line[:1].strip()), len(following))
    return inspect.cleandoc("\n".join(following[:end]))


def described(value, *titles):
    texts = [section(value, title) for title in titles]
    return {name for text in texts for name in re.findall(r"^\**(\w+): ", text, re.M)}


def parameters(value):
    if isinstance(value, type) and issubclass(value, Exception):
        return set()
    return set(inspect.signature(value).parameters) - {"self", "cls"}


def test_the_names_are_found():
    assert {"NAISDense", "stop.Halting", "spectral.power_step", "datasets.load"} <= set(NAMES)
    assert {"GradientCoupling.matrix", "DepthReport.table", "Iterate.build"} <= set(METHODS)
    assert "IterativeModel.fit" not in METHODS
    assert len(EXAMPLES) > len(NAMES)


def test_sections_come_in_one_order():
    for path, value in DOCUMENTED.items():
        lines = inspect.cleandoc(value.__doc__).splitlines()
        titles = [line[:-1] for line in lines if re.fullmatch(r"[A-Z][a-z]+( [a-z]+)?:", line)]
        places = [SECTIONS.index(title) for title in titles]
        assert places == sorted(set(places)), path


@pytest.mark.parametrize("title", ["Example", "See also"])
def test_every_name_has(title):
    missing = [name for name, value in NAMES.items() if not section(value, title)]
    assert not missing


def test_see_also_comes_last_and_names_what_exists():
    for path, value in DOCUMENTED.items():
        text = section(value, "See also")
        assert not text or inspect.cleandoc(value.__doc__).endswith(text.splitlines()[-1]), path
        for name in re.findall(r"`([^`]+)`", text):
            assert name != path, path
            found = ki
            for part in name.split("."):
                found = getattr(found, part, None)
            assert found is not None, f"{path}: `{name}`"


def test_every_parameter_is_described_and_no_other():
    wrong = {}
    for path, value in DOCUMENTED.items():
        if path in WITHOUT_PARAMETERS:
            continue
        given = parameters(value)
        lacking = given - described(value, "Args", "Attributes")
        unknown = described(value, "Args") - given
        if lacking or unknown:
            wrong[path] = (lacking, unknown)
    assert not wrong


def test_every_argument_of_a_call_is_described_and_no_other():
    layers = [n for n, v in CLASSES.items() if issubclass(v, keras.layers.Layer)]
    called = {name: CLASSES[name].call for name in layers if name != "IterativeModel"}
    called |= {name: CLASSES[name].__call__ for name in ("Chain", "GradientCoupling")}
    assert len(called) >= 8
    for name, call in called.items():
        assert described(NAMES[name], "Call arguments") == parameters(call), name


def test_a_function_says_what_it_returns():
    """In its first line or in a section."""
    for path, value in DOCUMENTED.items():
        if inspect.isfunction(value) and value.__annotations__.get("return"):
            begins = value.__doc__.startswith(("Return", "Yield", "Whether", "The ", "Why ", "T, "))
            assert begins or section(value, "Returns"), path


@pytest.mark.parametrize("path", EXAMPLES)
def test_the_example_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    text = DOCUMENTED[path].__doc__
    example = PARSER.get_doctest(text, dict(GIVEN), path, inspect.getsourcefile(ki), 0)
    report = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    assert not report, "".join(report)
