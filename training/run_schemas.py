"""What the files of a run's folder hold, as JSON schemas."""

import dataclasses
import types
import typing
from typing import Any

from .settings import Settings

_JSON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    types.NoneType: "null",
}


def _settings_schema() -> dict[str, Any]:
    """Return the schema of a run's settings, by the types of `Settings`."""
    fields = dataclasses.fields(Settings)
    hints = typing.get_type_hints(Settings)
    return {
        "type": "object",
        "properties": {
            field.name: {
                "type": [
                    _JSON_TYPES[kind]
                    for kind in typing.get_args(hints[field.name]) or [hints[field.name]]
                ]
            }
            for field in fields
        },
        "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        "additionalProperties": False,
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def _list(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


_COUNT = {"type": "integer", "minimum": 0}
_POSITIVE = {"type": "integer", "minimum": 1}
_AMOUNT = {"type": "number", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NULLABLE_SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_TEXT = {"type": "string"}

CONFIG = _object(
    {
        "settings": _settings_schema(),
        "data": _object(
            {
                "input_shape": {**_list(_POSITIVE, 3), "maxItems": 3},
                "classes": _list(_TEXT, 1),
                "scale": {"type": "number", "exclusiveMinimum": 0},
                "mean": _list({"type": "number"}, 1),
                "std": _list(_AMOUNT, 1),
                "images": _object({"train": _COUNT, "validation": _COUNT, "test": _COUNT}),
            }
        ),
        "versions": {"type": "object", "additionalProperties": _TEXT},
    },
    # The epochs that the run was first started for, and those done when it was given more.
    {"extensions": _list(_object({"epochs": _POSITIVE, "done": _COUNT}))},
)

RESULT = _object(
    {
        "model": _TEXT,
        "dataset": _TEXT,
        "epochs": _POSITIVE,
        "parameters": _COUNT,
        "train_accuracy": _SHARE,
        "validation_accuracy": _NULLABLE_SHARE,
        "test_accuracy": _SHARE,
        "generalization_gap": {"type": "number"},
        "processing_depth": _POSITIVE,
        "mean_depth": _AMOUNT,
        "min_depth": _COUNT,
        "max_depth": _COUNT,
        "share_at_limit": _SHARE,
        "share_not_finite": _SHARE,
        "images_per_second": _AMOUNT,
        "seconds": _AMOUNT,
        "seed": _COUNT,
        "machine": _TEXT,
    },
    {
        "indices": _object(
            {
                "mean": {
                    "type": "object",
                    "additionalProperties": {"type": ["number", "null"]},
                }
            }
        )
    },
)

# The member of a checkpoint that Keras does not know.
CHECKPOINT = _object({"epochs": _COUNT})

# The header of the state within an epoch.
EPOCH_STATE = _object({"epochs": _COUNT, "steps": _POSITIVE, "seconds": _AMOUNT})
