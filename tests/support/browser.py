"""A headless browser that tests drive, by the Chrome DevTools Protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

from tests.support.processes import SECONDS, process

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser reads and writes its messages at the file descriptors 3 and 4, each ended by a zero.
_SHELL = 'exec "$0" "$@" 3<&{} 4>&{}'


def find_browser() -> str:
    """Return the path of an installed browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found is not None, f"no browser: {', '.join(BROWSERS)}"
    return found


class Page:
    """A page in a browser.

    Attributes:
        errors: What went wrong so far: errors and warnings of the console, and exceptions.
        requests: The addresses that the page has asked for.
    """

    def __init__(self, reading: BufferedReader, writing: BufferedWriter):
        self._reading, self._writing = reading, writing
        self._buffer = b""
        self._count, self._session = 0, None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")
        self._writing.flush()
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._reading.read1(1 << 16)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, given = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.errors.append(json.dumps(given["args"]))
        elif kind == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(json.dumps(given["entry"]))
        elif kind == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page; that of a promise is waited for."""
        result = self.send(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def open(self, url: str, until: str) -> None:
        """Open an address, and wait until an expression is true."""
        self.send("Page.navigate", url=url)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until an expression is true; the process of the browser has a limit of time."""
        while not self.run(f"document.readyState === 'complete' && ({until})"):
            time.sleep(0.01)

    def resize(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the window in CSS pixels, and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        # Then what a `ResizeObserver` draws is there.
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Press, move or release the mouse: `mousePressed`, `mouseMoved`, `mouseReleased`."""
        held = int(kind != "mouseReleased")
        self.send(
            "Input.dispatchMouseEvent",
            type=kind, x=x, y=y, button="left", buttons=held, clickCount=1,
        )  # fmt: skip

    def press(self, key: str) -> None:
        """Press a key, such as `ArrowLeft`."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self) -> bytes:
        """Return the whole page as a PNG file."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def browser_page(profile: Path, seconds: float = SECONDS) -> Iterator[Page]:
    """Start a browser with an empty page.

    Args:
        profile: A folder for what the browser keeps.
        seconds: After so many the browser is killed, and the test fails.
    """
    browser = find_browser()
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    command = [
        "bash", "-c", _SHELL.format(their_read, their_write), browser, "--headless",
        "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]  # fmt: skip
    with (
        open(profile.with_suffix(".log"), "wb") as log,
        process(command, seconds, pass_fds=(their_read, their_write), stderr=log, stdout=log),
    ):
        os.close(their_read)
        os.close(their_write)
        with os.fdopen(our_read, "rb") as reading, os.fdopen(our_write, "wb") as writing:
            yield Page(reading, writing)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, as any static server does, and yield its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
