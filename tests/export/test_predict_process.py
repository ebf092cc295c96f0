"""`python -m export.predict` as a process of its own: its names, its streams, what it imports."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.processes import ROOT, process

# Says when the net starts.
# A shell starts what it runs in the background deaf to Ctrl-C, and so are that one's children.
INTERRUPTED = """
import signal, sys
from export import predict

signal.signal(signal.SIGINT, signal.default_int_handler)

classify = predict.OnnxClassifier.classify

def start(*arguments):
    print("runs", flush=True)
    return classify(*arguments)

predict.OnnxClassifier.classify = start
raise SystemExit(predict.main(sys.argv[1:]))
"""


def run_python(*arguments, **options):
    # Where Python does not buffer its output, what fails at its end is not seen.
    # Parallel workers set a terminal's width, which would count for a pipe too.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "COLUMNS"
    }
    environment |= options.pop("env", {})
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        timeout=120,
        **options,
    )


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("export.predict", "python -m export.predict"),
        ("iterconv.export.predict", "python -m iterconv.export.predict"),
    ],
)
def test_it_runs_under_both_names(adaptive_net, photos, name, program, tmp_path):
    # Its place in a checkout and in the wheel, and nothing else beside it.
    place = tmp_path / "site" / name.removesuffix(".predict").replace(".", "/")
    shutil.copytree(ROOT / "export", place, ignore=shutil.ignore_patterns("__pycache__"))
    (place.parent / "__init__.py").touch()
    done = run_python("-m", name, adaptive_net, *photos[0], cwd=tmp_path / "site")
    assert (done.returncode, done.stderr) == (0, b"")
    # A pipe has no width: a line each.
    assert done.stdout.count(b"\n") == 3 + len(photos[0]) + 2
    done = run_python("-m", name, "--help", cwd=tmp_path / "site")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {program} [OPTIONS] ".encode())


def test_the_script_works_without_what_others_need(adaptive_net, photos):
    code = "import sys; from iterconv.cli import main; sys.argv[0] = 'iterconv'; main()"
    done = run_python("-c", code, "predict", adaptive_net, photos[0][0])
    assert (done.returncode, done.stderr) == (0, b"")
    done = run_python("-c", code, "predict", "--help")
    assert done.stdout.startswith(b"Usage: iterconv predict [OPTIONS] ")
    look = "import sys, iterconv.cli as cli; cli._load('export.predict'); print(*sys.modules)"
    loaded = run_python("-c", look).stdout.split()
    assert b"export.predict" in loaded
    assert not {b"tensorflow", b"keras", b"keras_iterconv"} & set(loaded)


@pytest.mark.parametrize("options", [(), ("--json",), ("--help",)])
def test_a_closed_pipe_and_a_full_disk(adaptive_net, photos, options):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = run_python("-m", "export.predict", adaptive_net, photos[0][0], *options, stdout=pipe)
    assert (done.returncode, done.stderr) == (141, b"")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = run_python(
                "-m", "export.predict", adaptive_net, photos[0][0], *options, stdout=full
            )
        assert done.returncode == 1
        assert done.stderr == b"Error: the predictions cannot be written: No space left on device\n"


@pytest.mark.parametrize("broken", [">&-", "2>/dev/full", "2>&-", ">&- 2>&-", ">/dev/full 2>&1"])
@pytest.mark.parametrize("options", ["", "--json"])
def test_streams_that_cannot_be_written(adaptive_net, photos, broken, options):
    if "/dev/full" in broken and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    good, gone = photos[0][0], photos[0][0].with_name("gone.png")
    command = f'"$0" -m export.predict "$@" {options} {broken}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, adaptive_net, good, gone],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    answers_lost = broken.startswith(">")
    assert done.returncode == (1 if answers_lost else 2)
    # Errors never land among the answers, and there is no traceback.
    assert (b"sky0.png" in done.stdout) != answers_lost
    assert b"gone.png" not in done.stdout
    assert done.stderr.count(b"\n") == (2 if broken == ">&-" else 0)
    assert b"Traceback" not in done.stderr


LOCALES = {
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_paths_that_the_locale_cannot_spell(adaptive_net, photos, tmp_path, locale):
    name = "h\u00e4user".encode() + b"\xff"
    folder = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(folder)
    net, picture = folder + b"/" + name + b".onnx", folder + b"/" + name + b".png"
    shutil.copyfile(adaptive_net, net)
    shutil.copyfile(photos[0][0], picture)

    def run(*arguments):
        environment = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG")}
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "export.predict", *arguments],
            env=environment | LOCALES[locale],
            capture_output=True,
            cwd=ROOT,
            timeout=60,
        )

    done = run(net, picture, folder, picture + b"/gone", folder + b"/*.gone")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 2)
    assert done.stdout.count(b".png ") == 2
    done = run(net, picture, b"--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(json.loads(done.stdout)) == 1
    done = run(picture, picture)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"is not an ONNX model" in done.stderr


def test_ctrl_c_ends_a_long_run(save):
    net = ROOT / "saved_models/nais_mnist_adaptive/1/nais_mnist_adaptive.onnx"
    # Some ten minutes of updates; the picture is one in which a change never is exactly 0.
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    deep = ["--threshold", "0", "--max-unroll", str(2**31 - 1)]
    with process(
        [sys.executable, "-c", INTERRUPTED, str(net), str(save(pixels)), *deep],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout.readline() == b"runs\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        began = time.monotonic()
        output, error = running.communicate(timeout=30)
    assert (running.returncode, output, error) == (130, b"", b"Interrupted.\n")
    assert time.monotonic() - began < 10


def test_a_bad_picture_is_one_line(adaptive_net, save):
    path = save(np.zeros((3, 3, 3), np.uint8), "a.tiff")
    # Pillow logs what is wrong with 2048 samples a pixel.
    three, many = (struct.pack("<HHII", 277, 3, 1, n) for n in (3, 2048))
    content = path.read_bytes()
    assert content.count(three) == 1
    path.write_bytes(content.replace(three, many))
    done = run_python("-m", "export.predict", adaptive_net, path)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.startswith(b"Error: ")


WATCHED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {unwanted!r}:
            asked.append(name)
            raise ModuleNotFoundError(name)

asked = []
sys.meta_path.insert(0, Refuse())
from export.predict import OnnxClassifier, main
code = main(sys.argv[1:])
print(asked, sorted({unwanted!r} & {{name.split(".")[0] for name in sys.modules}}), file=sys.stderr)
raise SystemExit(code)
"""


def test_it_needs_onnx_runtime_numpy_and_pillow_alone(adaptive_net, photos):
    unwanted = {
        "tensorflow",
        "keras",
        "keras_iterconv",
        "typer",
        "rich",
        "scipy",
        "onnx",
        "tf2onnx",
    }
    unwanted |= {"sklearn", "matplotlib", "tensorflow_datasets", "training"}
    done = run_python("-c", WATCHED.format(unwanted=unwanted), adaptive_net, *photos[0])
    assert (done.returncode, done.stderr) == (0, b"[] []\n")
    assert b"sky6.png" in done.stdout
