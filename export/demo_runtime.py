"""The WebAssembly build of ONNX Runtime, as files of the npm package onnxruntime-web."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from iterconv.command_errors import UserError

PACKAGE = "onnxruntime-web@1.30.0"
# SHA-256 of its files that a page needs; both were run by the tests.
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
_DOWNLOAD_SECONDS = 600


def read_runtime(package: Path | None) -> dict[str, bytes]:
    """Return the files of the runtime by name.

    Args:
        package: The folder of the npm package, or the file that `npm pack` writes; None to let
            `npm pack` download it.

    Raises:
        UserError: The package cannot be read or downloaded, or a file is not that of its version.
    """
    if package is None:
        with tempfile.TemporaryDirectory() as folder:
            return read_runtime(_download(Path(folder)))
    try:
        files = _read_folder(package) if package.is_dir() else _read_archive(package)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise UserError(
            f"--runtime must be the folder of {PACKAGE} or its .tgz file: {package} ({error})"
        ) from error
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise UserError(
                f"--runtime must be {PACKAGE}: {name} of {package} differs from it. Run "
                f"`npm pack {PACKAGE}`"
            )
    return files


def _read_folder(package: Path) -> dict[str, bytes]:
    return {name: (package / "dist" / name).read_bytes() for name in FILES}


def _read_archive(package: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(package) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            if member is None:
                raise KeyError(f"{name} is no file")
            files[name] = member.read()
    return files


def _download(folder: Path) -> Path:
    """Let npm download the package, and return its archive."""
    remedy = f"; get {PACKAGE} elsewhere, by `npm pack`, and give its path as --runtime"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm is not installed{remedy}")
    command = [npm, "pack", PACKAGE, "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm did not end in {_DOWNLOAD_SECONDS} seconds{remedy}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = " ".join(done.stderr.split())[-300:]
        raise UserError(f"npm cannot download {PACKAGE}: {reason}{remedy}")
    return archives[0]
