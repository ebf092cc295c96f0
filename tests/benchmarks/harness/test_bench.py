"""Rounds of fake candidates: turns, pauses, thrown rounds, and processes that die."""

import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.harness.bench import Bench, order_of_round
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.process_settings import THREADS
from iterconv.command_errors import UserError

FAKES = "tests.support.fake_candidates"
STEADY = Candidate(f"{FAKES}:ScriptedControl", {"rates": [100.0] * 100})


def fake(name, call=None, **arguments):
    return Candidate(f"{FAKES}:{name}", arguments, call or {})


@pytest.fixture
def bench():
    with Bench("cpu", STEADY) as opened:
        yield opened


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_claimed_seconds_are_taken_round_by_round(bench):
    candidates = {
        "fast": fake("Scripted", seconds=[1.0, 2.0, 4.0]),
        "slow": fake("Scripted", seconds=[2.0, 6.0, 16.0]),
    }
    measured = bench.measure(candidates, 3)
    assert measured.seconds == {"fast": [1.0, 2.0, 4.0], "slow": [2.0, 6.0, 16.0]}
    assert measured.speedup("slow", "fast") == (3.0, 2.0, 4.0)
    assert (measured.thrown, measured.disturbed) == (0, 0)


def test_a_sleep_is_measured_by_the_clock_and_not_by_the_processor(bench):
    measured = bench.measure({"long": fake("Sleeper", seconds=0.3)}, 1)
    assert measured.seconds["long"][0] >= 0.3
    assert measured.processor["long"][0] < 0.15


def test_short_runs_are_repeated(bench):
    counter = fake("Counter")
    bench.measure({"short": counter}, 1)
    # To warm up, before the timed ones, and those.
    assert bench.ask(counter, "runs") > 3


@pytest.mark.parametrize("count", range(1, 9))
def test_the_order_of_rounds_is_balanced(count):
    names = "abcdefgh"[:count]
    orders = [order_of_round(names, number) for number in range(2 * count)]
    assert all(sorted(order) == list(names) for order in orders)
    places = Counter(place for order in orders for place in enumerate(order))
    assert set(places.values()) == {2}
    pairs = Counter(pair for order in orders for pair in itertools.pairwise(order))
    assert len(pairs) == count * (count - 1)
    assert set(pairs.values()) <= {2}


def test_the_order_changes_and_each_has_a_process(bench, tmp_path):
    file = tmp_path / "diary"
    letters = {letter: fake("Diary", file=file, letter=letter) for letter in "abc"}
    bench.measure(letters, 3)
    written = [line.split() for line in file.read_text().splitlines()]
    assert sorted(written[:3])[0][0] == "a"  # to warm up, in any order
    assert "".join(letter for letter, _ in written[3:]) == "abcbcacab"
    assert len(set(map(tuple, written))) == 3


def test_calls_of_one_object_share_a_process(bench, tmp_path):
    file = tmp_path / "diary"
    candidates = {mark: fake("Diary", {"mark": mark}, file=file, letter="a") for mark in "12"}
    bench.measure(candidates, 1)
    written = file.read_text().splitlines()
    assert [line.split()[0] for line in written] == ["a1", "a2", "a1", "a2"]
    assert len({line.split()[1] for line in written}) == 1


@pytest.mark.parametrize(
    ("rates", "seconds", "thrown", "disturbed"),
    [
        # Within 10%: all count.
        ([100.0, 109.0, 100.0], [1.0, 2.0], 0, 0),
        # It moves in the second round, which is repeated.
        ([100.0, 100.0, 80.0, 80.0], [1.0, 3.0], 1, 0),
        # It rises, too.
        ([100.0, 111.0, 111.0, 111.0], [2.0, 3.0], 1, 0),
        # It moves in all: two are thrown away, and two count, as reported.
        ([100.0, 80.0, 60.0, 40.0, 20.0], [3.0, 4.0], 2, 2),
    ],
    ids=["steady", "falls", "rises", "never steady"],
)
def test_rounds_in_which_the_control_moves_are_thrown_away(
    rates, seconds, thrown, disturbed, capsys
):
    with Bench("cpu", fake("ScriptedControl", rates=rates)) as bench:
        measured = bench.measure({"a": fake("Scripted", seconds=[1.0, 2.0, 3.0, 4.0])}, 2)
    assert measured.seconds["a"] == seconds
    assert (measured.thrown, measured.disturbed) == (thrown, disturbed)
    assert measured.control == list(itertools.pairwise(rates))
    assert len(measured.load) == len(measured.clock) == len(rates) - 1
    assert ("2 of 2 rounds are disturbed" in capsys.readouterr().err) == bool(disturbed)


def test_a_candidate_that_waits_takes_no_processor_time(bench):
    spinner = fake("Spinner")
    bench.measure({"spinner": spinner}, 1)
    pid = bench._processes[spinner.process_key].pid
    end = time.monotonic() + 60
    while not is_stopped(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
    before = processor_seconds(pid)
    time.sleep(0.5)
    assert processor_seconds(pid) == before
    # Awake, it spins.
    os.kill(pid, signal.SIGCONT)
    while processor_seconds(pid) == before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_exception_names_the_candidate(bench):
    with pytest.raises(UserError, match="the candidate 'bad' failed: ValueError: no such batch"):
        bench.measure({"good": fake("Sleeper", seconds=0), "bad": fake("Failing")}, 1)


@pytest.mark.parametrize(
    ("arguments", "how"),
    [({"code": 3}, "exit code 3"), ({"signal": 11}, "signal SIGSEGV")],
    ids=["exit", "signal"],
)
def test_a_dead_process_ends_the_benchmark_with_its_last_lines(bench, arguments, how):
    expected = f"the process of the candidate 'dies' ended with {how}; .*the last words"
    with pytest.raises(UserError, match=expected):
        bench.measure({"good": fake("Sleeper", seconds=0), "dies": fake("Dying", **arguments)}, 1)


def test_no_process_is_left(bench):
    bench.measure({"a": fake("Sleeper", seconds=0)}, 1)
    pids = [process.pid for process in bench._processes.values()]
    bench.close()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_all_processes_have_the_same_threads_and_see_no_gpu(bench):
    variables = bench.ask(fake("Surroundings"), "variables")
    cores = str(len(os.sched_getaffinity(0)))
    assert {variables[name] for name in THREADS} == {cores}
    assert variables["CUDA_VISIBLE_DEVICES"] == "-1"
    with Bench("gpu", STEADY) as other:
        variables = other.ask(fake("Surroundings"), "variables")
    assert variables["CUDA_VISIBLE_DEVICES"] != "-1"


def test_a_process_flushes_denormal_numbers(bench):
    assert bench.ask(fake("Surroundings"), "numpy_flushes")


@pytest.mark.pytorch
def test_pytorch_flushes_them_in_all_threads(bench):
    assert bench.ask(fake("Surroundings"), "torch_flushes")


@pytest.mark.pytorch
def test_pytorch_and_tensorflow_share_no_process(bench):
    surroundings = fake("Surroundings")
    assert bench.ask(surroundings, "torch_flushes")
    modules = bench.ask(surroundings, "modules")
    assert "torch" in modules
    assert not {"tensorflow", "keras", "keras_iterconv"} & set(modules)
