"""A zoo stays whole: what a kill at any moment leaves, what is refused, who waits for whom."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from export.zoo_folder import check_index, commit, new_entry, unlisted_files
from keras_iterconv._support.locking import locked
from keras_iterconv.zoo.index import ZooError

ROOT = Path(__file__).parents[2]
ENTRY = {
    "architecture": "nais10",
    "dataset": "digits",
    "input_shape": [8, 8, 1],
    "classes": ["a", "b"],
    "scale": 16,
    "mean": [1.0],
    "std": [2.0],
    "depth": None,
    "parameters": 7,
    "command": "python -m training.fit --model nais10",
    "result": dict.fromkeys(
        ("test_accuracy", "epochs", "seed", "mean_depth", "processing_depth"), 1
    ),
    "certificate": {
        **dict.fromkeys(("blocks", "blocks_that_hold"), 1),
        **{"holds": True, "norm": "infinity", "bound": None, "largest_ratio": 1.5},
        **{"findings": {"it settles": 1}, "largest_factor": 1.5},
    },
    "operators": {},
    "license": "Apache-2.0",
    "versions": {"keras": "3"},
}


GRAPH = "saved_model/saved_model.pb"


def publish(zoo, name="net", content="old", entry=ENTRY):
    with new_entry(zoo, name) as staged:
        (staged / "saved_model").mkdir()
        (staged / f"{name}.keras").write_text(content)
        (staged / GRAPH).write_text(content * 2)
        commit(zoo, name, staged, {**entry, "license": content})


def read_whole(zoo, name="net"):
    """Return an entry, or None, after all that the index names has been verified."""
    if not (zoo / "index.json").exists():
        return None
    index = json.loads((zoo / "index.json").read_text())
    check_index(index, zoo)
    for entry in index["models"].values():
        for file, facts in entry["files"].items():
            content = (zoo / file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == facts["sha256"]
            assert len(content) == facts["bytes"]
    return index["models"].get(name)


def contents(zoo):
    return sorted(p.relative_to(zoo).as_posix() for p in zoo.rglob("*") if p.is_file())


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


# Forks for each job: what a process of its own would import takes seconds.
FORKING = """
import json, os, pathlib, shutil, signal, sys, tempfile

sys.path[:0] = [{root!r}, {tests!r}]
import test_zoo_folder

MODULES = {{"os": os, "shutil": shutil, "tempfile": tempfile, "Path": pathlib.Path}}

def prepare_kill(module, name, number, moment):
    # Kills this process before or after the call of that number of a function.
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

children = []
for zoo, model, contents, kill in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        try:
            if kill:
                prepare_kill(*kill)
            for content in contents:
                test_zoo_folder.publish(pathlib.Path(zoo), model, content)
            os._exit(0)
        finally:
            os._exit(1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(json.dumps(codes))
"""


def publish_elsewhere(jobs):
    """Publish in a process for each `(zoo, name, contents, kill)`; return the exit codes."""
    program = FORKING.format(root=str(ROOT), tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    codes = publish_elsewhere([(str(case[0]), "net", ["new"], case[-1]) for case in cases])
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


def test_what_a_killed_one_left_of_another_model_is_removed(tmp_path):
    publish(tmp_path, "other")
    for left in ("other/.partial-abcd_123/files", "other/7"):
        (tmp_path / left / "saved_model" / "variables").mkdir(parents=True)
        (tmp_path / left / "other.keras").write_text("half")
        (tmp_path / left / "saved_model" / "variables" / "variables.index").write_text("half")
    (tmp_path / "other" / ".partial-empty___").mkdir()
    publish(tmp_path, "net")
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["1"]
    assert read_whole(tmp_path, "other")


STRANGERS = [
    "other/.partial-mine/thesis.txt",
    "other/.partial-abcd1234/thesis.txt",
    "other/.partial-abcd1234/files/thesis.txt",
    "other/.partial-mine/files/other.keras",
    "other/7/thesis.txt",
    "other/7/README.md",
    "other/notes/other.keras",
    "other/²/other.keras",
    "net/2024/file",
    "net/.partial-file",
    "third/.partial-abcd1234/files/third.keras",
    "third/7/third.keras",
    ".partial-mine1234/index.json.old",
]


def test_what_is_somebody_else_s_stays_and_is_told(tmp_path):
    publish(tmp_path, "other")
    for left in STRANGERS:
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("mine")
    for name in ("net", "other"):
        publish(tmp_path, name, "new")
    assert {left for left in STRANGERS if not (tmp_path / left).is_file()} == set()
    assert unlisted_files(tmp_path) == sorted(STRANGERS)


@pytest.mark.parametrize("place", ["other", "other/.partial-abcd1234", "other/7"])
def test_what_a_link_leads_to_stays(tmp_path, place):
    zoo, outside = tmp_path / "zoo", tmp_path / "outside"
    publish(zoo, "other")
    for left in ("files/other.keras", ".partial-abcd1234/files/other.keras", "7/other.keras"):
        (outside / left).parent.mkdir(parents=True)
        (outside / left).write_text("mine")
    if place == "other":
        (zoo / "other").rename(zoo / "away")
    (zoo / place).symlink_to(outside)
    before = contents(outside)
    publish(zoo, "net")
    assert contents(outside) == before
    assert place in unlisted_files(zoo)


@pytest.mark.parametrize("place", ["index.json", ".partial-index.json", "net", ".lock"])
def test_a_planted_link_is_not_written_through(tmp_path, place):
    zoo, precious = tmp_path / "zoo", tmp_path / "precious"
    zoo.mkdir()
    if place == "net":
        precious.mkdir()
    else:
        precious.write_text("mine")
    (zoo / place).symlink_to(precious)
    if place == ".partial-index.json":
        publish(zoo)
    else:
        with pytest.raises((ZooError, OSError), match=place):
            publish(zoo)
    assert not list(precious.iterdir()) if place == "net" else precious.read_text() == "mine"


def test_a_file_that_is_no_lock_of_ours_stays(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    publish(tmp_path)
    assert (tmp_path / ".lock").read_text() == "mine"


def test_files_that_are_published_during_a_listing(tmp_path, monkeypatch):
    publish(tmp_path, content="old")
    real = os.walk

    def publish_in_between(top):
        found = list(real(top))
        publish(tmp_path, content="new")
        return [*found, *real(top)]

    monkeypatch.setattr("export.zoo_folder.os.walk", publish_in_between)
    assert unlisted_files(tmp_path) == []


def test_a_nan_is_not_published(tmp_path):
    publish(tmp_path, content="old")
    result = {**ENTRY["result"], "test_accuracy": float("nan")}
    with pytest.raises(ZooError, match="NaN is no JSON number"):
        publish(tmp_path, content="new", entry={**ENTRY, "result": result})
    assert read_whole(tmp_path)["license"] == "old"


def test_folders_whose_digits_are_no_numbers(tmp_path):
    for name in ("²", "٣", "1e3"):
        (tmp_path / "net" / name).mkdir(parents=True)
    publish(tmp_path)
    assert "net/1/net.keras" in read_whole(tmp_path)["files"]


def test_a_writer_waits_for_the_lock(tmp_path):
    publish(tmp_path)
    with locked(tmp_path / ".lock"):
        waiting = threading.Thread(target=publish, args=(tmp_path,), kwargs={"content": "new"})
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert read_whole(tmp_path)["license"] == "old"
    waiting.join(10)
    assert read_whole(tmp_path)["license"] == "new"
    assert not (tmp_path / ".lock").exists()


def test_nothing_is_removed_by_an_index_that_is_no_zoo_s(tmp_path):
    publish(tmp_path, "other")
    index = json.loads((tmp_path / "index.json").read_text())
    for change in (
        {"version": 2},
        {"models": {"other": None}},
        {"models": {"other": {"files": {}}}},
    ):
        (tmp_path / "index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(ZooError, match="is not as expected"):
            publish(tmp_path, "net")
        assert (tmp_path / "other" / "1" / "other.keras").exists()


def test_publishers_wait_for_each_other(tmp_path):
    jobs = [
        (str(tmp_path), name, [f"{name} {number}" for number in range(20)], None)
        for name in ("first", "second", "first")
    ]
    assert publish_elsewhere(jobs) == [0, 0, 0]
    # No entry is lost to a publisher that read the index before another wrote it.
    for name in ("first", "second"):
        assert read_whole(tmp_path, name)["license"] == f"{name} 19"
        assert len(list((tmp_path / name).iterdir())) == 1
    assert [p.name for p in (tmp_path / "first").iterdir()] == ["40"]
