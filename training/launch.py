"""Start several workers of a command on this machine: `python -m training.launch`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app, options_of

from .cluster import LAUNCHER, Cluster

_options = options_of("Workers")
# Seconds that workers get to end by themselves: after Ctrl-C or after the chief, and after the
# failure of another, which most of them await in an operation that no signal ends.
GRACE, GRACE_AFTER_FAILURE = 10.0, 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSE = 0.1


def launch(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="-- fit ...",
            help="The command and its options, for example: -- fit --model nais10.",
        ),
    ],
    workers: Annotated[int, _options("Number of workers on this machine.", "2")] = 2,
) -> None:
    """Train one model by several processes.

    The first worker, the chief, writes to the screen and the run's folder. Lines of the others
    begin with their number. When a worker fails, all are ended.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1: {workers}")
    command, *options = arguments
    if command != "fit":
        raise UserError(f"the command after -- must be fit: {command}")
    given = {option.partition("=")[0] for option in options}
    if not given & {"--strategy", "--resume", "--help"}:
        options += ["--strategy", "multiworker"]
    # The script finds its commands from any folder; `training` is a module of the checkout alone.
    code = run_workers([sys.executable, "-m", "iterconv", command, *options], workers)
    if code:
        raise SystemExit(code)


def run_workers(command: Sequence[str], count: int) -> int:
    """Run a command as several workers, and return the exit status of the first that failed.

    Args:
        command: The command of each worker, which reads `TF_CONFIG`.
        count: Number of workers.

    Returns:
        0 when all have ended well; the status of the one that failed first, where 128 and the
        number of the signal stand for a signal.
    """
    with contextlib.ExitStack() as stack:
        received = stack.enter_context(_noted_signals())
        addresses = stack.enter_context(_reserved_addresses(count))
        # Removed in the end, also what a killed worker leaves.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="iterconv-launch-"))
        workers = [
            stack.enter_context(_started(command, Cluster(addresses, i), folder))
            for i in range(count)
        ]
        return _watch(workers, received)


def _watch(workers: list[subprocess.Popen], received: list[int]) -> int:
    """Wait for the workers, end the others when one fails, and return the exit status."""
    while not received:
        for number, worker in enumerate(workers):
            code = worker.poll()
            if code:
                _say(number, code, len(workers))
                _end(workers, signal.SIGTERM, GRACE_AFTER_FAILURE)
                return 128 - code if code < 0 else code
        if workers[0].returncode is not None:
            # The chief is done, and what the others still do is of no use.
            _end(workers, None)
            return 0
        time.sleep(_PAUSE)
    _end(workers, received[0])
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    return 128 + received[0]


def _say(number: int, code: int, count: int) -> None:
    """Print which worker failed. The message of a worker's own error stands above."""
    reason = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    others = "" if count == 1 else "; the other workers are ended"
    refused = code == UserError.exit_code
    advice = "" if refused else ". A run that had begun goes on with --resume and its folder"
    print(f"Error: worker {number} {reason}{others}{advice}", file=sys.stderr, flush=True)


def _end(workers: list[subprocess.Popen], number: int | None, grace: float = GRACE) -> None:
    """Send all workers a signal, and kill those that go on for longer than some seconds."""
    if number is not None:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)
    deadline = time.monotonic() + grace
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(deadline - time.monotonic(), _PAUSE))
    for worker in workers:
        worker.kill()
        worker.wait()


@contextlib.contextmanager
def _started(command: Sequence[str], cluster: Cluster, folder: str) -> Iterator[subprocess.Popen]:
    """Start a worker; kill it at the end if it still runs."""
    chief = cluster.worker == 0
    environment = {
        **os.environ,
        "TF_CONFIG": cluster.to_config(),
        LAUNCHER: str(os.getpid()),
        "TF_GRPC_REUSE_PORT": "true",
        "TMPDIR": folder,
    }
    worker = subprocess.Popen(
        command,
        env=environment,
        stdin=None if chief else subprocess.DEVNULL,
        stdout=None if chief else subprocess.PIPE,
        stderr=None if chief else subprocess.STDOUT,
        # Ctrl-C reaches this process alone, which ends the workers.
        start_new_session=True,
    )
    reader = threading.Thread(target=_copy_lines, args=(worker, cluster.worker), daemon=True)
    if not chief:
        reader.start()
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        if not chief:
            reader.join(GRACE)


def _copy_lines(worker: subprocess.Popen, number: int) -> None:
    for line in worker.stdout or ():
        text = line.decode(errors="backslashreplace")
        print(f"worker {number}: {text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _reserved_addresses(count: int) -> Iterator[list[str]]:
    """Yield free addresses of this machine, which nobody else gets in this context.

    The sockets do not listen, and let the workers use their ports (`TF_GRPC_REUSE_PORT`).
    """
    with contextlib.ExitStack() as stack:
        addresses = []
        for _ in range(count):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{taken.getsockname()[1]}")
        yield addresses


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Yield a list of the signals that would end this process, in place of what they do."""
    received: list[int] = []

    def note(number: int, *frame: Any) -> None:
        received.append(number)

    # `nohup` ignores the end of a terminal, for what it starts too.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Run the command line."""
    run_command(make_command_app(launch), "python -m training.launch")


if __name__ == "__main__":
    main()
