"""A zoo stays whole: what a kill at any moment leaves, what is refused, who waits for whom."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from export.zoo_folder import check_index, new_entry
from keras_iterconv.zoo.index import ZooError
from tests.support.processes import call_in_processes
from tests.support.small_zoo import ENTRY, contents, publish, read_whole


def test_a_second_publish_replaces_the_first(tmp_path):
    publish(tmp_path, content="old")
    assert contents(tmp_path) == [
        "index.json",
        "net/1/net.keras",
        "net/1/saved_model/saved_model.pb",
    ]
    assert read_whole(tmp_path) == {
        **ENTRY,
        "license": "old",
        "files": {
            "net/1/saved_model/saved_model.pb": {
                "sha256": hashlib.sha256(b"oldold").hexdigest(),
                "bytes": 6,
            },
            "net/1/net.keras": {"sha256": hashlib.sha256(b"old").hexdigest(), "bytes": 3},
        },
    }
    publish(tmp_path, content="new")
    assert read_whole(tmp_path)["license"] == "new"
    assert contents(tmp_path) == [
        "index.json",
        "net/2/net.keras",
        "net/2/saved_model/saved_model.pb",
    ]
    publish(tmp_path, "another")
    assert read_whole(tmp_path)["license"] == "new"
    index = json.loads((tmp_path / "index.json").read_text())
    assert list(index["models"]) == ["another", "net"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Do not wait for the disk: that is for a power failure, and no test has one."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


MODULES = {"os": os, "shutil": shutil, "tempfile": tempfile, "Path": Path}


def prepare_kill(module, name, number, moment):
    """Let the call of that number of a function kill this process, before or after the call."""
    module, calls = MODULES[module], []
    real = getattr(module, name)

    def deadly(*args, **kwargs):
        calls.append(args)
        if len(calls) == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if len(calls) == number and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, deadly)


def publish_each(zoo, name, contents, kill):
    """Publish contents one after another, in a process of their own."""
    os.fsync = lambda file: None
    if kill:
        prepare_kill(*kill)
    for content in contents:
        publish(Path(zoo), name, content)


DEADLY = [
    *(("Path", "mkdir", number) for number in (1, 2, 3, 4)),
    *(("tempfile", "mkdtemp", number) for number in (1, 2)),
    *(("Path", "write_text", number) for number in (1, 2, 3)),
    *(("os", "fsync", number) for number in (1, 3)),
    *(("os", "rename", number) for number in (1, 2)),
    ("os", "replace", 1),
    ("shutil", "rmtree", 1),
    ("Path", "unlink", 1),
]
# What is called first when the index has been replaced.
LATE = [("os", "rename", 2), ("shutil", "rmtree", 1), ("Path", "unlink", 1)]


def test_a_kill_leaves_the_old_or_the_new_whole(tmp_path):
    cases = []
    for replaces, (module, name, number), moment in itertools.product(
        (True, False), DEADLY, ("before", "after")
    ):
        # Only a publish that replaces something moves it away.
        if (name, number) == ("rename", 2) and not replaces:
            continue
        zoo = tmp_path / f"{replaces}-{name}-{number}-{moment}"
        zoo.mkdir()
        publish(zoo, "other", "other")
        if replaces:
            publish(zoo, content="old")
        new = (module, name, number) in LATE or (name == "replace" and moment == "after")
        expected = "new" if new else "old" if replaces else None
        cases.append((zoo, expected, (module, name, number, moment)))
    calls = [(str(zoo), "net", ["new"], kill) for zoo, _, kill in cases]
    codes = call_in_processes(publish_each, calls)
    assert codes == [-signal.SIGKILL] * len(cases)
    for zoo, expected, _ in cases:
        found = read_whole(zoo)
        # The index is what counts, and it is replaced by the one call of `os.replace`.
        assert (found and found["license"]) == expected, zoo.name
        assert read_whole(zoo, "other")["license"] == "other"
        # The next one finds the lock free, and removes what was left.
        publish(zoo, content="next")
        entry = read_whole(zoo)
        assert entry["license"] == "next"
        (number,) = {file.split("/")[1] for file in entry["files"]}
        assert [p.name for p in (zoo / "net").iterdir()] == [number]
        assert sorted(p.name for p in zoo.iterdir()) == ["index.json", "net", "other"]


def spoilt(**changes):
    return {**ENTRY, **changes}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (spoilt(classes=["one"]), "models/net/classes"),
        (spoilt(parameters=0), "models/net/parameters"),
        (spoilt(scale="16"), "models/net/scale"),
        (spoilt(depth={"threshold": 1e-3}), "models/net/depth"),
        (spoilt(extra=1), "'extra' was unexpected"),
        ({k: v for k, v in ENTRY.items() if k != "command"}, "'command' is a required"),
    ],
)
def test_an_entry_against_the_schema_is_refused(tmp_path, entry, said):
    publish(tmp_path, content="old")
    before = contents(tmp_path)
    with pytest.raises(ZooError, match=said) as error:
        publish(tmp_path, content="new", entry=entry)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    assert read_whole(tmp_path)["license"] == "old"


@pytest.mark.parametrize(
    "name",
    ["../evil", "..", "/tmp/evil-zoo", "Net", "a/b", ".net", "", "a b", "net\n", "²", 300 * "a"],
)
def test_a_name_that_is_no_folder_s_is_refused(tmp_path, name):
    zoo = tmp_path / "zoo"
    with pytest.raises(ZooError, match="name"):
        publish(zoo, name)
    assert list(tmp_path.rglob("*")) in ([], [zoo])
    assert not Path("/tmp/evil-zoo").exists()


@pytest.mark.parametrize(
    "place",
    [
        "../evil/1/a",
        "net/1/../../../evil",
        "/etc/passwd",
        "net/a",
        "net/1/..",
        "net/1/a\n",
        "net/²/a",
    ],
)
def test_a_place_outside_is_against_the_schema(tmp_path, place):
    publish(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    facts = {"sha256": "0" * 64, "bytes": 1}
    index["models"]["net"]["files"][place] = facts
    with pytest.raises(ZooError, match="models/net/files"):
        check_index(index, tmp_path)


def test_a_failure_leaves_the_old_entry(tmp_path):
    publish(tmp_path, content="old")
    before = contents(tmp_path)
    with pytest.raises(TypeError):
        publish(tmp_path, content=object())
    assert contents(tmp_path) == before


def test_a_first_publication_that_fails_leaves_nothing(tmp_path):
    def fail():
        with new_entry(tmp_path, "net") as staged:
            (staged / "net.keras").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_publishers_wait_for_each_other(tmp_path):
    calls = [
        (str(tmp_path), name, [f"{name} {number}" for number in range(20)], None)
        for name in ("first", "second", "first")
    ]
    assert call_in_processes(publish_each, calls) == [0, 0, 0]
    # No entry is lost to a publisher that read the index before another wrote it.
    for name in ("first", "second"):
        assert read_whole(tmp_path, name)["license"] == f"{name} 19"
        assert len(list((tmp_path / name).iterdir())) == 1
    assert [p.name for p in (tmp_path / "first").iterdir()] == ["40"]
