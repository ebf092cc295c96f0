"""A zoo's folder with small files in place of models."""

import hashlib
import json

from export.zoo_folder import check_index, commit, new_entry

ENTRY = {
    "architecture": "nais10",
    "dataset": "digits",
    "input_shape": [8, 8, 1],
    "classes": ["a", "b"],
    "scale": 16,
    "mean": [1.0],
    "std": [2.0],
    "depth": None,
    "parameters": 7,
    "command": "python -m training.fit --model nais10",
    "result": dict.fromkeys(
        ("test_accuracy", "epochs", "seed", "mean_depth", "processing_depth"), 1
    ),
    "certificate": {
        **dict.fromkeys(("blocks", "blocks_that_hold"), 1),
        **{"holds": True, "norm": "infinity", "bound": None, "largest_ratio": 1.5},
        **{"findings": {"it settles": 1}, "largest_factor": 1.5},
    },
    "operators": {},
    "license": "Apache-2.0",
    "versions": {"keras": "3"},
}
GRAPH = "saved_model/saved_model.pb"


def publish(zoo, name="net", content="old", entry=ENTRY):
    with new_entry(zoo, name) as staged:
        (staged / "saved_model").mkdir()
        (staged / f"{name}.keras").write_text(content)
        (staged / GRAPH).write_text(content * 2)
        commit(zoo, name, staged, {**entry, "license": content})


def read_whole(zoo, name="net"):
    """Return an entry, or None, after all that the index names has been verified."""
    if not (zoo / "index.json").exists():
        return None
    index = json.loads((zoo / "index.json").read_text())
    check_index(index, zoo)
    for entry in index["models"].values():
        for file, facts in entry["files"].items():
            content = (zoo / file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == facts["sha256"]
            assert len(content) == facts["bytes"]
    return index["models"].get(name)


def contents(zoo):
    return sorted(p.relative_to(zoo).as_posix() for p in zoo.rglob("*") if p.is_file())
