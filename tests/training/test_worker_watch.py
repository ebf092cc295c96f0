"""The watch over other workers."""

import socket
import threading

from training.worker_watch import watch


def listening():
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def start(addresses):
    over, lost = threading.Event(), []
    thread = threading.Thread(target=watch, args=(addresses, over, lost.append, 0.02))
    thread.start()
    return over, lost, thread


def test_a_worker_that_is_gone_is_reported_once():
    (stays, one), (goes, other) = listening(), listening()
    over, lost, thread = start([one, other])
    goes.accept()[0].close()  # It was reached.
    goes.close()
    thread.join(10)
    assert lost == [other]
    assert not over.is_set()
    stays.close()


def test_a_worker_that_has_not_come_yet_is_awaited():
    server, address = listening()
    server.close()
    over, lost, thread = start([address])
    thread.join(0.3)
    assert thread.is_alive()
    over.set()
    thread.join(10)
    assert not lost
    assert not thread.is_alive()


def test_without_others_there_is_no_watch():
    _, lost, thread = start([])
    thread.join(10)
    assert not thread.is_alive()
    assert not lost
