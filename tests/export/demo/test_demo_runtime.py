"""Where the demonstration gets ONNX Runtime Web: a folder, an archive, or npm; and no other one."""

import hashlib
import tarfile

import pytest

from export import demo_runtime
from iterconv.command_errors import UserError

CONTENTS = {"script.mjs": b"export const x = 1;", "code.wasm": b"\0asm"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of the real one, unpacked; its archive lies beside it."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(demo_runtime, "FILES", digests)
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / "dist" / name).write_bytes(content)
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    return folder


def put_npm(tmp_path, monkeypatch, script):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")


@pytest.mark.parametrize("suffix", ["", ".tgz"])
def test_a_package_is_read(package, suffix):
    assert demo_runtime.read_runtime(package.parent / f"package{suffix}") == CONTENTS


def test_npm_downloads_the_version_that_was_tried(package, monkeypatch, tmp_path):
    archive = tmp_path / "package.tgz"
    put_npm(tmp_path, monkeypatch, f'echo "$1 $2" > {tmp_path}/asked; cp {archive} "$4"')
    assert demo_runtime.read_runtime(None) == CONTENTS
    assert (tmp_path / "asked").read_text() == f"pack {demo_runtime.PACKAGE}\n"


def test_another_version_is_refused(package):
    (package / "dist" / "code.wasm").write_bytes(b"\0asm\1")
    with pytest.raises(UserError, match=r"code\.wasm of .* differs from it.*npm pack"):
        demo_runtime.read_runtime(package)


def test_what_is_no_package_is_refused(package, tmp_path):
    (tmp_path / "text.tgz").write_text("no archive")
    (package / "dist" / "script.mjs").unlink()
    for path in (tmp_path / "text.tgz", tmp_path / "missing", package):
        with pytest.raises(UserError, match=r"--runtime must be the folder of onnxruntime-web@"):
            demo_runtime.read_runtime(path)


def test_npm_is_missing_or_fails(package, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm is not installed; .* --runtime"):
        demo_runtime.read_runtime(None)
    put_npm(tmp_path, monkeypatch, "echo no network >&2; exit 1")
    with pytest.raises(UserError, match=r"cannot download .*: no network; .* --runtime"):
        demo_runtime.read_runtime(None)
