"""The model card of a published model: its facts, its accuracy and its use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_iterconv.datasets import CATALOGUE
from keras_iterconv.models.deep_thinking_net import PADDING
from keras_iterconv.zoo.index import CHECKOUT_ZOO

from .data_source import READING
from .hub_card import make_front_matter
from .quantized_file import INT8, describe_int8, int8_name
from .zoo_folder import CURVES, DEPTH_FIGURE, SAVED_MODEL

_DEPTH = f"""
![Depth of test images by class, with accuracy and confidence]({DEPTH_FIGURE})
"""
_TEMPLATE = """\
# {name}

{architecture} on {dataset}: {summary}. {license}.

| | |
| --- | --- |
| test accuracy | {accuracy} |
| parameters | {parameters:,} |
| updates per image | {updates} |
| images | {shape}, values from 0 to {scale:g} |
| classes | {classes} |
| command | `{command}` |
| trained on | {machine}, {seconds:.0f} s, seed {seed} |
| versions | {versions} |

![Loss and accuracy by epoch]({curves})
{depth_figure}
## Use

```python
import keras_iterconv as ki

model = ki.load_pretrained({arguments})
logits = model(model.preprocessing(images))
```

`model.preprocessing` computes {pixels}. In units of the raw values, by channel: mean {mean}, std
{std}.
{raw}{pictures}{predict}{int8}
## Stability

With caps and normalisation folded into the weights, {held} of {blocks} blocks have a guarantee.
{gain}

{findings}
{operators}"""
_RAW = "The other files take raw images, float32 `[N, {shape}]`, and include this preprocessing.\n"
_PICTURES = """
`ki.datasets.read_picture(path, ({shape}))` reads a picture file as in the training: {reading}.
"""
_PREDICT = """
```bash
iterconv predict {name}.onnx picture.png{options}
```
"""
_INT8 = """
`{file}` has the inputs and outputs of `{name}.onnx`, and weights of 8 bits: {facts}.
"""
_OPERATORS = """
## Operators of the ONNX file

{operators}
"""


# Data sets of sequences, whose nets take any length.
SEQUENCES = tuple(name for name, entry in CATALOGUE.items() if entry.task == "labels_per_position")
_SEQUENCES = f"""
Sequences may have any length, `[N, length, 1, 1]`. In a batch of several lengths, values behind the
end of a sequence are such that the standardised value is below {PADDING / 2:g}: they are masked.
"""


def make_card(
    name: str, entry: dict[str, Any], folder: Path, zoo: Path, settable: bool = True
) -> str:
    """Return a model's card in Markdown.

    Args:
        name: The model's name in the zoo.
        entry: The model's entry in the index.
        folder: The folder of the model's files.
        zoo: The zoo's folder; the card names it unless it is the checkout's.
        settable: Whether the depth of the ONNX file can be set.
    """
    result, certificate, depth = entry["result"], entry["certificate"], entry["depth"]
    options = predict = operators = raw = int8 = ""
    if depth is not None and settable:
        options = f" --threshold {10 * depth['threshold']:g} --max-unroll {depth['max_unroll']}"
    if (folder / f"{name}.onnx").exists():
        # The command reads pictures; a net for sequences has no use for one.
        if entry["dataset"] not in SEQUENCES:
            predict = _PREDICT.format(name=name, options=options)
        counted = ", ".join(f"{count} {kind}" for kind, count in entry["operators"].items())
        operators = _OPERATORS.format(operators=counted)
    if operators or (folder / SAVED_MODEL).exists():
        raw = _RAW.format(shape=", ".join(map(str, entry["input_shape"])))
        if entry["dataset"] in SEQUENCES:
            raw += _SEQUENCES
    if INT8 in entry:
        int8 = _INT8.format(file=int8_name(name), name=name, facts=describe_int8(entry))
    arguments = json.dumps(name)
    if zoo.resolve() != CHECKOUT_ZOO.resolve():
        arguments += f", zoo={json.dumps(str(zoo), ensure_ascii=False)}"
    return make_front_matter(name, entry, bool(operators)) + _TEMPLATE.format(
        name=name,
        arguments=arguments,
        curves=CURVES,
        architecture=f"`{entry['architecture']}`",
        dataset=entry["dataset"],
        summary=f"{result['epochs']} epochs",
        license=entry["license"],
        accuracy=_accuracy(result),
        parameters=entry["parameters"],
        updates=_updates(result, depth),
        shape="x".join(map(str, entry["input_shape"])),
        scale=entry["scale"],
        classes=_cell(", ".join(entry["classes"])),
        command=_cell(entry["command"]),
        machine=result["machine"],
        seconds=result["seconds"],
        seed=result["seed"],
        versions=", ".join(
            f"{package} {version}" for package, version in entry["versions"].items()
        ),
        pixels=_pixels(entry),
        mean=json.dumps(entry["mean"]),
        std=json.dumps(entry["std"]),
        raw=raw,
        pictures=_pictures(entry),
        predict=predict,
        int8=int8,
        depth_figure=_DEPTH if (folder / DEPTH_FIGURE).exists() else "",
        held=certificate["blocks_that_hold"],
        blocks=certificate["blocks"],
        gain=_gain(certificate),
        findings="\n".join(
            f"- {count} of {certificate['blocks']} blocks: {text}"
            for text, count in certificate["findings"].items()
        ),
        operators=operators,
    )


def _accuracy(result: Mapping[str, Any]) -> str:
    text = f"{result['test_accuracy']:.2%}"
    if "test_accuracy_mirrored" in result:
        mirrored = f"{result['test_accuracy_mirrored']:.2%}"
        text += f" |\n| by the mean of the logits of an image and its mirror image | {mirrored}"
    return text


def _updates(result: Mapping, depth: Mapping | None) -> str:
    """Return the cell about the updates of an image, and the row about a calibration after it."""
    if depth is None:
        return f"{result['processing_depth']}"
    cell = (
        f"{result['mean_depth']:.1f} on average, at most {result['processing_depth']}; "
        f"stopping threshold {depth['threshold']:g}"
    )
    if "calibrated" in result:
        cell += f" |\n| calibrated to | {result['calibrated']}"
    return cell


def _cell(text: str) -> str:
    """Return a text for a cell of a table; the name of a user's folder may have any characters."""
    return text.replace("|", "\\|")


def _pictures(entry: Mapping) -> str:
    """Return how a picture file becomes an image, for a model of pictures of any size."""
    if "data_source" not in entry:
        return ""
    return _PICTURES.format(shape=", ".join(map(str, entry["input_shape"])), reading=READING)


def _gain(certificate: Mapping) -> str:
    """Return the sentences about the factors by which a model multiplies distances."""
    bound, ratio = certificate["bound"], certificate["largest_ratio"]
    factor, gains = certificate["largest_factor"], []
    if factor is not None:
        gains.append(f"A block multiplies distances by at most {_number(factor)}.")
    if bound is None:
        gains.append("No Lipschitz bound of the whole model is known.")
    else:
        gains.append(
            f"The model's Lipschitz bound is {_number(bound)} ({certificate['norm']} norm)."
        )
    if ratio is not None:
        gains.append(
            f"Gradient ascent found a distance that the model multiplies by {_number(ratio)}."
        )
    return " ".join(gains)


def _pixels(entry: Mapping) -> str:
    """Return the formula of a model's input from raw images, as code."""
    mean, std = set(entry["mean"]), set(entry["std"])
    if (mean, std) == ({0}, {entry["scale"]}):
        return f"image / {entry['scale']:g}: values from 0 to 1"
    return "(image - mean) / std"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
