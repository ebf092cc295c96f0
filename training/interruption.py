"""Ctrl-C that ends a training for certain."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import keras


class Interruption(keras.callbacks.Callback):
    """Callback that ends a training at the end of a batch where Ctrl-C was lost before.

    Python raises `KeyboardInterrupt` wherever the main thread is. In a destructor, and in Python
    code that compiled code calls, nobody receives it, and the training would go on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note Ctrl-C in this context, where it would raise `KeyboardInterrupt`."""
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *received: Any) -> NoReturn:
        self._asked = True
        raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._asked:
            raise KeyboardInterrupt
