"""The start of several workers."""

import re
import socket
import threading
import time

import pytest

from iterconv.command_errors import UserError
from training.cluster import Cluster
from training.worker_meeting import find_reached, meet

SHORT = 0.02


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    return addresses


def start(addresses, number, servers):
    """Start a worker, which then listens as TensorFlow does."""

    def run():
        meet(Cluster(addresses, number), pause=SHORT)
        port = int(addresses[number].rpartition(":")[2])
        servers.append(socket.create_server(("", port)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_all_go_on_when_the_last_one_has_started():
    addresses, servers = free_addresses(3), []
    early = [start(addresses, number, servers) for number in (2, 0)]
    for thread in early:
        thread.join(0.2)
        assert thread.is_alive()
    for thread in [*early, start(addresses, 1, servers)]:
        thread.join(10)
        assert not thread.is_alive()
    assert len(servers) == 3
    for server in servers:
        server.close()


def test_missing_workers_are_named_again_and_again():
    addresses, said, seen = free_addresses(3), [], threading.Event()

    def say(line):
        said.append(line)
        if len(said) == 2:
            seen.set()

    with socket.create_server(("127.0.0.1", int(addresses[1].rpartition(":")[2]))):
        arguments = (Cluster(addresses, 0), say, SHORT, 0.1)
        thread = threading.Thread(target=meet, args=arguments, daemon=True)
        thread.start()
        assert seen.wait(10)
    expected = rf"worker 0 has waited 0 s for worker 2 \({re.escape(addresses[2])}\): start what is"
    assert re.match(expected, said[0])
    with socket.create_server(("127.0.0.1", int(addresses[2].rpartition(":")[2]))):
        thread.join(10)
    assert not thread.is_alive()


def test_a_port_in_use_is_refused():
    (address,) = free_addresses(1)
    port = int(address.rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match=f"this worker cannot listen at {address} "),
    ):
        meet(Cluster([address, "127.0.0.1:1"], 0))


def test_addresses_that_do_not_answer_are_tried_at_the_same_time(monkeypatch):
    all_tried = threading.Barrier(5)

    def connect(address, seconds):
        all_tried.wait(10)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    begin = time.monotonic()
    assert not find_reached({str(i): "n:1" for i in range(5)})
    assert time.monotonic() - begin < 10
