"""A server with the part of the Hugging Face Hub's interface that a download uses."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves the folders of repositories, and records the paths and revisions that were asked for.

    Args:
        repositories: Folders by `owner/name`.
    """

    daemon_threads = True

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.read, self.revisions = [], set()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *args):
        pass

    def _answer(self, body):
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        owner, name, kind, revision, *rest = parts[2:] if api else parts
        self.server.revisions.add(revision)
        folder = self.server.repositories.get(f"{owner}/{name}")
        if folder is None:
            self._send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        elif kind == "revision":
            found = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}
            self._send(200, json.dumps(found).encode(), body, {})
        elif kind == "tree":
            self._send(200, json.dumps(self._tree(folder)).encode(), body, {})
        else:
            self.server.read.append("/".join(rest))
            content = folder.joinpath(*rest).read_bytes()
            facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob_id(content)}"'}
            self._send(200, content, body, facts)

    def _tree(self, folder):
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": _blob_id(path.read_bytes()),
            }
            for path in files
        ]

    def _send(self, status, content, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _blob_id(content):
    """Return the name that Git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def serve_hub(repositories, cache):
    """Yield a running server that `huggingface_hub` takes for the hub, with a cache of its own.

    Args:
        repositories: Folders by `owner/name`.
        cache: The folder of the cache.
    """
    with HubServer(repositories) as server, pytest.MonkeyPatch.context() as patch:
        address = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(constants.ENDPOINT, address)
        )
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HF_HOME", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
