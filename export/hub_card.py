"""The facts of a model for the Hugging Face Hub, at the head of its card."""

import json
from typing import Any

from .data_source import task_name

# Those that are on the hub, under their names there.
DATASETS = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
# The hub's names of our tasks; others have none.
TASKS = {"classes": "image-classification", "label_sets": "image-classification"}
LIBRARY = "keras-iterconv"


def make_front_matter(name: str, entry: dict[str, Any], onnx: bool) -> str:
    """Return the facts of a card as YAML between two lines of dashes.

    Args:
        name: The model's name in the zoo.
        entry: The model's entry in the index.
        onnx: Whether there is an ONNX file.
    """
    dataset, result = entry["dataset"], entry["result"]
    task = TASKS.get(task_name(dataset))
    tags = ["keras", "tensorflow", *(["onnx"] if onnx else [])]
    tags += [entry["architecture"], *(["adaptive-depth"] if entry["depth"] else [])]
    accuracy = {"type": "accuracy", "name": "Test accuracy", "value": result["test_accuracy"]}
    tested = {
        "task": {"type": task or "other"},
        "dataset": {"type": DATASETS.get(dataset, dataset), "name": dataset, "split": "test"},
        "metrics": [accuracy],
    }
    facts: dict[str, Any] = {
        "library_name": LIBRARY,
        "license": entry["license"].lower(),
        "tags": list(dict.fromkeys(tags)),
        **({} if task is None else {"pipeline_tag": task}),
        **({"datasets": [DATASETS[dataset]]} if dataset in DATASETS else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [tested]}],
    }
    # JSON is YAML too.
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())
    return "---\n" + "\n".join(lines) + "\n---\n"
