"""What the rounds of a benchmark say about the machine, in one line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

FACTS = ("control_flops_per_second", "load_average", "rounds_thrown_away", "rounds_disturbed")


def rounds_note(content: Any) -> str:
    """Return a line about all rounds of a benchmark; empty if it has none.

    Args:
        content: The content of a JSON file, which holds results of `Measured.rounds_facts` in any
            places.
    """
    # Results of the same rounds repeat what is known of them.
    found = list({json.dumps(each, sort_keys=True): each for each in _rounds(content)}.values())
    if not found:
        return ""
    control = np.concatenate([np.ravel(each["control_flops_per_second"]) for each in found]) / 1e9
    load = np.concatenate([each["load_average"] for each in found])
    thrown, disturbed = (
        sum(each[f"rounds_{name}"] for each in found) for name in ("thrown_away", "disturbed")
    )
    return (
        f"control {np.median(control):.0f} GFLOP/s ({control.min():.0f} to {control.max():.0f}), "
        f"load average {load.min():.1f} to {load.max():.1f}, rounds thrown away {thrown}, "
        f"disturbed and counted {disturbed}"
    )


def _rounds(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Mapping):
        if "control_flops_per_second" in content:
            yield {name: content[name] for name in FACTS}
        content = list(content.values())
    if isinstance(content, Sequence) and not isinstance(content, str):
        for part in content:
            yield from _rounds(part)
