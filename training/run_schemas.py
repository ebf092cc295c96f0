"""The JSON schemas of the files in a run's folder."""

import dataclasses
import types
import typing
from typing import Any

from keras_iterconv.runs import AMOUNT, COUNT, POSITIVE, config_schema, json_object

from .settings import Settings

_JSON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    types.NoneType: "null",
}


def _settings_schema() -> dict[str, Any]:
    """Return the schema of a run's settings, from the types of `Settings`."""
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


CONFIG = config_schema(_settings_schema())

# The member of a checkpoint that this project adds to Keras's members.
CHECKPOINT = json_object({"epochs": COUNT})

# The header of the state within an epoch.
EPOCH_STATE = json_object({"epochs": COUNT, "steps": POSITIVE, "seconds": AMOUNT})
