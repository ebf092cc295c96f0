"""The command that makes all tables: what it runs, leaves, repeats and reports."""

import importlib
import json

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from benchmarks import __main__ as all_tables
from benchmarks import beside
from benchmarks.harness.machine import machine_facts
from benchmarks.harness.markdown import to_markdown
from benchmarks.harness.rounds_note import rounds_note
from benchmarks.table_list import TABLES, command_of


def invoke(*options):
    return CliRunner().invoke(all_tables.app, options)


def content(options, **changes):
    table = {"header": ["candidate", "ms"], "lines": [["one", "2.5"], [" two", "3"]]}
    facts = {"title": "T", "date": "today", "note": "quiet", "machine": machine_facts()}
    return {**facts, "command": options, "table": table, **changes}


@pytest.fixture
def started(monkeypatch):
    """Record the commands; each writes its file, but for `fails`."""
    commands = []

    def run(command, log):
        commands.append(command)
        if "benchmarks.iterate_cost" in command:
            return False
        with open(command[-1], "w", encoding="utf-8") as file:
            json.dump(content(command[3:]), file)
        return True

    monkeypatch.setattr(all_tables, "_run", run)
    return commands


TWO = ["--only", "compaction", "--only", "indices"]


def test_what_is_there_is_not_made_again(started, tmp_path):
    for expected in (2, 2):
        result = invoke(*TWO, "--output", str(tmp_path))
        assert result.exit_code == 0
        assert len(started) == expected
    assert result.output.count("already there") == 2
    # A cut file, other options, another commit: all are made.
    (tmp_path / "compaction.json").write_text('{"title": ')
    invoke(*TWO, "--output", str(tmp_path))
    assert len(started) == 3
    invoke(*TWO, "--rounds", "4", "--output", str(tmp_path))
    assert len(started) == 5
    file = tmp_path / "indices.json"
    old = json.loads(file.read_text())
    old["machine"]["commit"] = "0" * 40
    file.write_text(json.dumps(old))
    invoke(*TWO, "--rounds", "4", "--output", str(tmp_path))
    assert len(started) == 6
    invoke(*TWO, "--rounds", "4", "--again", "--output", str(tmp_path))
    assert len(started) == 8


def test_one_failure_stops_no_other(started, tmp_path):
    names = ["compaction", "iterate_cost", "indices"]
    only = [part for name in names for part in ("--only", name)]
    result = invoke(*only, "--output", str(tmp_path))
    assert [command[2] for command in started] == [f"benchmarks.{name}" for name in names]
    assert isinstance(result.exception, all_tables.TablesFailedError)
    assert result.exception.exit_code == 1
    assert "1 of 3 tables failed: iterate_cost" in str(result.exception)
    assert (tmp_path / "tables.md").read_text().count("## T") == 2


def test_an_unknown_table_is_refused(tmp_path):
    result = invoke("--only", "speed", "--output", str(tmp_path))
    assert "--only must be of train_step_nais10" in str(result.exception)


@pytest.fixture
def gpu(monkeypatch):
    found = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *args: [found])


def test_the_device_and_the_rounds_are_passed_on(started, tmp_path, gpu):
    invoke(*TWO, "--device", "gpu", "--rounds", "4", "--output", str(tmp_path))
    for command in started:
        assert command[command.index("--device") + 1] == "gpu"
        assert command[command.index("--rounds") + 1] == "4"


def test_on_a_gpu_the_tables_of_the_cpu_are_left_out(started, tmp_path, gpu):
    invoke("--device", "gpu", "--output", str(tmp_path))
    made = {command[-1].rpartition("/")[2].removesuffix(".json") for command in started}
    assert set(TABLES) - made == {
        "memory", "onnx_threads", "litert_inference", "all_reduce_2_workers",
        "all_reduce_4_workers", "int8_files",
    }  # fmt: skip
    result = invoke("--device", "gpu", "--only", "memory", "--output", str(tmp_path))
    assert "--only memory is of the CPU alone" in str(result.exception)


@pytest.mark.parametrize("name", TABLES)
def test_each_benchmark_knows_its_options(name):
    """A command that only parses: with --help the last, nothing runs."""
    for quick in (False, True):
        module, options = command_of(TABLES[name], quick, 2, "cpu")
        app = importlib.import_module(module).app
        result = CliRunner().invoke(app, [*options, "--output", "out.json", "--help"])
        assert result.exit_code == 0, result.output
        names = {option for option in options if option.startswith("--")}
        assert all(f"{option} " in result.output for option in names)


def test_one_table_is_made_in_truth(tmp_path):
    only = ["--only", "compaction", "--quick"]
    result = invoke(*only, "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "compaction.json").read_text())
    assert found["machine"] == machine_facts()
    assert found["note"] in (tmp_path / "tables.md").read_text()
    assert "already there" in invoke(*only, "--output", str(tmp_path)).output


def test_a_failing_benchmark_leaves_its_words(tmp_path, capfd):
    log = tmp_path / "log"
    done = all_tables._run([all_tables.sys.executable, "-c", "raise SystemExit('no disk')"], log)
    assert not done
    assert log.read_text() == "no disk\n"
    assert "failed with exit code 1: no disk" in capfd.readouterr().out


def test_markdown():
    text = to_markdown(content([]))
    head, facts, table = text.rstrip("\n").split("\n\n")
    assert head == "## T"
    assert machine_facts()["processor"] in facts
    assert facts.endswith("; quiet")
    assert table.splitlines() == ["| candidate | ms |", "| --- | ---: |", "| one | 2.5 |",
                                  "| two | 3 |"]  # fmt: skip


def test_two_runs_stand_side_by_side(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    changed = {"header": ["candidate", "ms"], "lines": [["one", "2.6"], [" two", "3"]]}
    for folder, changes in zip(folders, ({}, {"table": changed, "note": "loud"}), strict=True):
        folder.mkdir()
        text = json.dumps(content(["--rounds", "2", "--output", "file"], **changes))
        (folder / "compaction.json").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(beside.app, [str(folder) for folder in folders])
    assert result.exit_code == 0, result.output
    assert "| one | 2.5 / 2.6 |\n| two | 3 |" in result.output
    assert (
        "T. `python -m benchmarks.compaction --rounds 2`; today quiet; today loud" in result.output
    )
    assert result.output.count(machine_facts()["commit"]) == 1


def test_runs_by_other_commands_do_not_stand_side_by_side(tmp_path):
    for folder, options in (("one", ["--rounds", "2"]), ("two", [])):
        (tmp_path / folder).mkdir()
        text = json.dumps(content(options))
        (tmp_path / folder / "compaction.json").write_text(text, encoding="utf-8")
    folders = [str(tmp_path / folder) for folder in ("one", "two")]
    refused = str(CliRunner().invoke(beside.app, folders).exception)
    assert refused == (
        "compaction was measured by different commands: python -m benchmarks.compaction, "
        "python -m benchmarks.compaction --rounds 2"
    )


def test_each_of_several_machines_stands_with_its_folder(tmp_path):
    for folder, cores in (("b", 4), ("a", 2)):
        (tmp_path / folder).mkdir()
        text = json.dumps(content([], machine={**machine_facts(), "cores": cores}))
        (tmp_path / folder / "compaction.json").write_text(text, encoding="utf-8")
    folders = [str(tmp_path / folder) for folder in ("b", "a")]
    first, second, *_ = CliRunner().invoke(beside.app, folders).output.split("\n\n")
    assert first.startswith(f"{folders[0]}: ")
    assert ", 4 cores, " in first
    assert second.startswith(f"{folders[1]}: ")
    assert ", 2 cores, " in second


def test_runs_of_other_tables_do_not_stand_side_by_side(tmp_path):
    other = {"header": ["candidate", "ms"], "lines": [["three", "2.6"]]}
    for folder, changes in (("one", {}), ("two", {"table": other})):
        (tmp_path / folder).mkdir()
        text = json.dumps(content([], **changes))
        (tmp_path / folder / "compaction.json").write_text(text, encoding="utf-8")
    folders = [str(tmp_path / folder) for folder in ("one", "two", "none")]
    refused = "compaction: the tables have different rows or columns"
    assert str(CliRunner().invoke(beside.app, folders[:2]).exception) == refused
    missing = CliRunner().invoke(beside.app, folders).exception
    assert str(missing) == f"compaction.json is not in all of the folders: {folders[0]} has it"
    assert str(CliRunner().invoke(beside.app, folders[2:]).exception) == f"no table in {folders[2]}"


def test_the_note_is_about_all_rounds():
    def rounds(control, load, thrown, disturbed):
        return {
            "control_flops_per_second": control,
            "load_average": load,
            "rounds_thrown_away": thrown,
            "rounds_disturbed": disturbed,
        }

    places = {
        "rows": [{"rounds": rounds([(1e9, 2e9)], [0.5], 1, 0)}],
        "more": {"deep": rounds([(3e9, 9e9)], [2.5], 2, 1)},
    }
    assert rounds_note(places) == (
        "control 2 GFLOP/s (1 to 9), load average 0.5 to 2.5, rounds thrown away 3, "
        "disturbed and counted 1"
    )
    # Several results of the same rounds count once.
    same = rounds([(1e9, 2e9)], [0.5], 4, 0)
    assert "thrown away 4," in rounds_note([{"batch": 1, **same}, {"batch": 1, "more": same}])
    assert rounds_note({"rows": [1, "text"]}) == ""
