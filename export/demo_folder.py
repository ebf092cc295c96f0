"""The folder of the demonstration for browsers."""

import json
import os
from pathlib import Path

from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error
from keras_iterconv._support.files import replacing_folder
from keras_iterconv.zoo.index import find_zoo, read_index

from .demo_nets import DIGIT_NETS, SEQUENCE_NET, make_digit_net, make_sequence_net
from .demo_runtime import PACKAGE, read_runtime

PAGE = Path(__file__).with_name("demo_page")
FACTS = "demo.json"


def write_demo(
    output: Path, zoo: str | os.PathLike | None, runtime: Path | None, console: Console
) -> None:
    """Write the folder of the demonstration.

    Args:
        output: The folder; an earlier demonstration is replaced.
        zoo: The zoo's folder; None as for `ki.load_pretrained`.
        runtime: The npm package of the runtime; see `read_runtime`.
        console: The console for the progress; it must print names without interpreting markup.

    Raises:
        DatasetError: A data set is not on this machine.
        UserError: The runtime or a net is missing, or `output` holds anything else.
        ZooError: The zoo is invalid.
    """
    _check_output(output)
    folder = find_zoo(zoo)
    models = read_index(folder)["models"]
    missing = sorted({*DIGIT_NETS, SEQUENCE_NET} - set(models))
    if missing:
        raise UserError(
            f"--zoo must have the nets of the demo: {folder} has no {', '.join(missing)}"
        )

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    say(f"reading {PACKAGE}")
    # Browsers take scripts only with a type that some servers do not give to .mjs files.
    files = {
        f"runtime/{name.replace('.mjs', '.js')}": content
        for name, content in read_runtime(runtime).items()
    }
    files |= {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.is_file()}
    digits = [as_user_error(make_digit_net, folder, name, models[name], say) for name in DIGIT_NETS]
    say(f"{SEQUENCE_NET}: converting to ONNX")
    sequences = as_user_error(make_sequence_net, folder, models[SEQUENCE_NET])
    for net in (*digits, sequences):
        files[f"nets/{net.facts['file']}"] = net.content
    facts = {
        "version": ki.__version__,
        "digits": [net.facts for net in digits],
        "sequences": sequences.facts,
    }
    files[FACTS] = json.dumps(facts).encode()
    _write(output, files)
    say(
        f"wrote {sum(map(len, files.values())) / 1e6:.1f} MB into {output}: run "
        f"`python -m http.server --directory {output}`, and open http://localhost:8000"
    )


def _check_output(output: Path) -> None:
    """Raise `UserError` where the folder holds anything that is no demonstration."""
    if output.is_dir() and any(output.iterdir()) and not (output / FACTS).is_file():
        raise UserError(f"--output must be a new folder or an earlier demo: {output} is neither")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output must be a folder: {output} is a file")


def _write(output: Path, files: dict[str, bytes]) -> None:
    """Write the files into a new folder, which then takes the place of the old one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(output) as staged:
        for name, content in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content)
