"""The nets of the zoo: whether an update, or a whole net, expands a distance beyond its bound."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.certificates.certification import block_rows_of
from keras_iterconv.datasets import evaluation_batches
from keras_iterconv.layers.rules.rows import BlockRow
from keras_iterconv.zoo.index import find_zoo, read_index

from .readouts import as_json
from .stable_trajectories import geometry_of

IMAGES = 8
# The norms of the differences whose growth is measured, as shares of the state's norm.
SIZES = (0.01, 0.3)


def measure_net(name: str) -> dict[str, Any]:
    """Return the certificate of a net of the zoo beside what its updates do to distances.

    Returns:
        `blocks` and `held`: the number of blocks, and of those whose guarantee holds; `expansion`:
        the largest factor of an update as a share of the factor that is proven for it, over all
        blocks with a proof; `proven`: their number; `bound` and `largest_ratio` of the whole net,
        as in a `StabilityReport`.
    """
    folder = find_zoo(None)
    entry = read_index(folder)["models"][name]
    model = ki.load_pretrained(name, folder)
    data = datasets.load(str(entry["dataset"]))
    scaling: dict[str, Any] = {key: np.float32(entry[key]) for key in ("mean", "std")}
    images, _ = next(iter(evaluation_batches(data.test, **scaling, batch_size=IMAGES)))
    report = ki.certify(model, images)
    shares = expansions(model, images)
    return {
        "blocks": len(report.blocks),
        "held": sum(row.holds for row in report.blocks),
        "proven": len(shares),
        "expansion": as_json(max(shares.values(), default=0.0)),
        "bound": as_json(np.nan if report.bound is None else report.bound),
        "largest_ratio": as_json(report.largest_ratio),
    }


def expansions(model: keras.Model, images: Any) -> dict[str, float]:
    """Return the largest expansion of each block's updates, as a share of the proven factor.

    An update is tried at the states of the images' trajectory, each beside a drawn state.

    Args:
        model: The net.
        images: The images as the net expects them.

    Returns:
        The shares by the rows' names, of blocks whose update has a proven factor.
    """
    # Nothing is proven of the updates of an `Iterate`.
    layers = [layer for layer in ki.iterated_blocks(model) if layer.adds_change or layer.scheduled]
    rows = {row.name: row for block in block_rows_of(model).values() for row in block}
    if not layers:
        return {}
    entries = keras.Model(model.input, [layer.input for layer in layers])(images)
    found: dict[str, float] = {}
    for layer, inputs in zip(layers, _listed(entries), strict=True):
        state = layer.make_initial_state(inputs) if layer.adjustable else inputs
        for k in range(layer.max_unroll):
            row = rows[f"{layer.name}[{k}]"] if layer.scheduled else rows[layer.name]
            share = _expansion(layer, row, state, inputs, k)
            found[row.name] = max(found.get(row.name, 0.0), share)
            state = layer.update(state, inputs, k)
    return found


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _expansion(layer: Any, row: BlockRow, state: Any, inputs: Any, k: int) -> float:
    """Return the factor of update k as a share of the proven one, from a state and drawn ones."""
    # A slope below 1 brings the factor of a NAIS block up to 1.
    norm: Callable[[np.ndarray], np.ndarray] = _flat_norm
    limit = 1.0
    if row.norm == "2" and row.factor is not None:
        limit = row.factor
    else:
        norm = geometry_of(layer, 0 if layer.tied else k).norm
    new = layer.update(state, inputs, k).numpy().astype(float)
    rng = np.random.default_rng(k)
    shares = []
    for size in SIZES:
        draw = rng.normal(size=state.shape)
        scale = np.linalg.norm(state) / np.linalg.norm(draw)
        near = tf.cast(state + size * (scale or 1.0) * draw, state.dtype)
        change = layer.update(near, inputs, k).numpy() - new
        before = norm(near.numpy().astype(float) - state.numpy().astype(float))
        shares.append((norm(change) / before).max() / limit)
    return float(max(shares))


def _flat_norm(difference: np.ndarray) -> np.ndarray:
    return np.linalg.norm(difference.reshape(len(difference), -1), axis=1)
