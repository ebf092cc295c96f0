"""The loops of `Iterate` in ONNX: any update, on a state of several tensors, by any rule.

As in `onnx_loops`, graphs that TensorFlow's converter made replace the operators of a template.
`Start` maps the inputs to x(0), the drives, and what the rule remembers; `Update` maps x(k), k,
the drives, that memory and the threshold to x(k+1), the new memory, whether each sample goes on,
and whether what the rule measured is finite.
"""

import functools
import re
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper, parser

from keras_iterconv._support.private_keras import mask_of, set_mask
from keras_iterconv.exporting.onnx_graph import (
    fold_constants,
    inline,
    place_constants,
    simplify,
)
from keras_iterconv.exporting.onnx_parts import convert_graph
from keras_iterconv.layers import Iterate

_CONSTANTS = """
 bool yes = {1}, bool[1] unknown = {1}, int64 zero = {0}, int64 one = {1}, int64[1] flat = {-1},
 int64[1] last_axis = {1}, float none = {0}, float largest = {3.4028234663852886e+38},
 float smallest = {1.1754943508222875e-38},
 int32 converged = {0}, int32 at_limit = {1}, int32 not_finite = {2}
"""

_FIXED = """
fixed ($float u$, int32 max_unroll) => ($float state$, int32[N] depth, int32[N] status)
<CONSTANTS>
{
    $start$, $drive$ = Start($u$)
    limit = Cast<to = 7>(max_unroll)
    $state$ = Loop<body = update (int64 k, bool go_on, $float x$)
        => (bool go_on_too, $float x_new$) {
        go_on_too = Identity(go_on)
        $x_new$ = Update($x$, k, $drive$)
    }>(limit, yes, $start$)
    samples = Shape<start = 0, end = 1>(u0)
    depth = Expand(max_unroll, samples)
    $zeros$ each = Mul($state$, none)
    $total$ each = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>($zeros$, $axes$)
    all_totals = Sum($total$)
    finite_state = Equal(all_totals, none)
    status = Where(finite_state, at_limit, not_finite)
}
"""

# A round updates all active samples until at least one of them stops; then the stopped samples are
# removed from the batch. `made` is one larger for samples that have not converged at the limit, and
# negative where what the rule measured was not finite.
_ADAPTIVE = """
adaptive ($float u$, int32 max_unroll, float threshold)
    => ($float state$, int32[N] depth, int32[N] status)
<CONSTANTS>
{
    $start$, $drive$, $memory$ = Start($u$)
    positive = Greater(threshold, none)
    floor = Where(positive, smallest, none)
    at_least = Max(threshold, floor)
    bound = Min(at_least, largest)
    given_limit = Cast<to = 7>(max_unroll)
    limit = Max(given_limit, one)
    samples = Shape<start = 0, end = 1>(u0)
    count = Squeeze(samples)
    some = Cast<to = 9>(count)
    numbers = Range(zero, count, one)
    all_rows = Unsqueeze(numbers, last_axis)

    k_end, rows_end, $x_end$, $drive_end$, $memory_end$, $state$, made_by_each = Loop<body = round
        (int64 number, bool some_were_left, int64 k, int64[n, 1] rows, $float x$,
         $float drive_left$, $kind memory_left$, $float end$, int64[N] made)
        => (bool some_left, int64 k_next, int64[m, 1] rows_next, $float x_next$,
            $float drive_next$, $kind memory_next$, $float end_next$, int64[N] made_next) {
        room = Sub(limit, k)
        k_next, $x_new$, $memory_new$, moves, finite = Loop<body = update
            (int64 step, bool all_moved, int64 k_old, $float x_old$, $kind memory_old$,
             bool[] moves_old, bool[] finite_old)
            => (bool all_move, int64 k_new, $float x_after$, $kind memory_after$,
                bool[] moves_after, bool[] finite_after) {
            $x_after$, $memory_after$, moves_after, finite_after = Update(
                $x_old$, k_old, $drive_left$, $memory_old$, bound)
            k_new = Add(k_old, one)
            as_numbers = Cast<to = 6>(moves_after)
            least = ReduceMin<keepdims = 0>(as_numbers)
            all_move = Cast<to = 9>(least)
        }>(room, yes, k, $x$, $memory_left$, unknown, unknown)

        one_more = Cast<to = 7>(moves)
        made_if_finite = Add(k_next, one_more)
        negative = Neg(k_next)
        made_by_round = Where(finite, made_if_finite, negative)
        made_next = ScatterND(made, rows, made_by_round)
        $end_next$ each = ScatterND($end$, rows, $x_new$)
        below_limit = Less(k_next, limit)
        goes_on = And(moves, below_limit)
        places = NonZero(goes_on)
        left = Reshape(places, flat)
        rows_next = Gather(rows, left)
        $x_next$ each = Gather($x_new$, left)
        $drive_next$ each = Gather($drive_left$, left)
        $memory_next$ each = Gather($memory_new$, left)
        count_left = Size(left)
        some_left = Cast<to = 9>(count_left)
    }>(limit, some, zero, all_rows, $start$, $drive$, $memory$, $start$, numbers)

    counted = Abs(made_by_each)
    updates = Min(counted, limit)
    depth = Cast<to = 6>(updates)
    $zeros$ each = Mul($state$, none)
    $total$ each = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>($zeros$, $axes$)
    all_totals = Sum($total$)
    finite_state = Equal(all_totals, none)
    finite_value = Greater(made_by_each, zero)
    all_finite = And(finite_state, finite_value)
    still_moving = Greater(made_by_each, limit)
    status_if_finite = Where(still_moving, at_limit, converged)
    status = Where(all_finite, status_if_finite, not_finite)
}
"""


# The groups of names in a template: those of the inputs, the drives and the memory; all others are
# those of the state.
_GROUPS = {"u": "inputs", "drive": "drives", "memory": "memory"}
_KINDS = {tf.float32: "float", tf.int32: "int32"}


def convert_iterate(layer: Iterate, inputs: Any) -> onnx.GraphProto:
    """Return the graph of a layer.

    Args:
        layer: A built layer in float32.
        inputs: Its inputs, symbolic tensors `[N, ...]` in their structure.

    Returns:
        A graph from the inputs, their mask as numbers if they carry one, `max_unroll` and, for
        adaptive depth, the threshold to the tensors of the state, depth and status. The weights
        are constants.
    """
    parts = _Parts(layer, inputs)
    adaptive = layer.threshold is not None
    graph = parser.parse_graph(_fill(_ADAPTIVE if adaptive else _FIXED, parts))
    for number, state in enumerate(parts.specs["state"]):
        axes = np.arange(1, state.shape.rank)
        graph.initializer.append(numpy_helper.from_array(axes, f"axes{number}"))
    k, bound = tf.TensorSpec((), tf.int64, "k"), tf.TensorSpec((), tf.float32, "bound")
    signature = [*parts.specs["state"], k, *parts.specs["drives"]]
    if adaptive:
        signature += [*parts.specs["memory"], bound]
    inline(graph, "Start", convert_graph(parts.start, parts.specs["inputs"]))
    inline(graph, "Update", convert_graph(parts.update, signature))
    simplify(graph)
    place_constants(graph)
    fold_constants(graph)
    return graph


class _Parts:
    """The functions that replace the operators of a template, and the tensors they exchange.

    Attributes:
        specs: The specifications of the tensors of each group: `"inputs"`, `"state"`, `"drives"`
            and `"memory"`.
    """

    def __init__(self, layer: Iterate, inputs: Any):
        self.layer, self.inputs = layer, inputs
        self.adaptive = layer.threshold is not None
        mask = mask_of(inputs)
        flat = [*keras.tree.flatten(inputs), *([] if mask is None else [mask])]
        self.masked = mask is not None
        specs = [tf.TensorSpec(z.shape, tf.float32, f"u{n}") for n, z in enumerate(flat)]
        self._groups: dict[str, Any] = {}
        tf.function(self.start, input_signature=specs, autograph=False).get_concrete_function()
        self.specs = {"inputs": specs}
        for name, letter in (("state", "x"), ("drives", "d"), ("memory", "m")):
            self.specs[name] = [
                tf.TensorSpec((None, *z.shape[1:]), z.dtype, f"{letter}{n}")
                for n, z in enumerate(tf.nest.flatten(self._groups[name]))
            ]

    def start(self, *flat: tf.Tensor) -> tuple:
        """Return x(0), the drives and, of an adaptive depth, the memory of the rule, flat."""
        values = flat[:-1] if self.masked else flat
        mask = flat[-1] > 0 if self.masked else None
        inputs = keras.tree.pack_sequence_as(self.inputs, values)
        if mask is not None:
            for tensor in values:
                set_mask(tensor, mask)
        state = self.layer.make_initial_state(inputs)
        bound, rule = self.layer.bind(state, inputs, mask)
        memory = rule.begin(state, bound.weights, bound.drives) if self.adaptive else ()
        drives = bound.drives
        # The template has a memory also where the rule has none.
        if not tf.nest.flatten(memory):
            self._remembers, memory = False, tf.zeros([tf.shape(flat[0])[0]])
        else:
            self._remembers = True
        self._groups = {"state": state, "drives": drives, "memory": memory}
        found = [state, drives, memory] if self.adaptive else [state, drives]
        return tuple(tf.nest.flatten(found))

    def update(self, *flat: tf.Tensor) -> tuple:
        """Return the state after an update, and of an adaptive depth what the rule says of it."""
        values = iter(flat)

        def take(group):
            found = [next(values) for _ in tf.nest.flatten(self._groups[group])]
            return tf.nest.pack_sequence_as(self._groups[group], found)

        state, k, drives = take("state"), tf.cast(next(values), tf.int32), take("drives")
        sample = keras.tree.map_structure(
            lambda z: tf.zeros([1, *(size or 1 for size in z.shape[1:])]), self.inputs
        )
        mask = tf.ones([1, 1], tf.bool) if self.masked else None
        bound, rule = self.layer.bind(state, sample, mask)
        bound = bound._replace(drives=drives)
        new, change = bound.step(state, k)
        if not self.adaptive:
            return tuple(tf.nest.flatten(new))
        memory, threshold = take("memory"), next(values)
        held = memory if self._remembers else ()
        value, held = rule.measure(change, new, held, bound.weights, bound.drives)
        finite = tf.math.is_finite(value)
        moves = rule.goes_on(value, threshold)
        if self.layer.min_unroll > 1:
            moves |= finite & (k + 1 < self.layer.min_unroll)
        memory = held if self._remembers else memory
        return *tf.nest.flatten(new), *tf.nest.flatten(memory), moves, finite


def _fill(template: str, parts: _Parts) -> str:
    """Return a template with its lists of names and types written out."""

    def group(name):
        return parts.specs[_GROUPS.get(name.split("_")[0], "state")]

    def written(match, only=None):
        kind, name = match["kind"], match["name"]
        names = [
            f"{_KINDS[spec.dtype]}[] {name}{n}" if kind else f"{name}{n}"
            for n, spec in enumerate(group(name))
            if only in (None, n)
        ]
        return ", ".join(names)

    lists = re.compile(r"\$(?:(?P<kind>float|kind) )?(?P<name>\w+)\$")
    lines = []
    for line in template.replace("CONSTANTS", _CONSTANTS).splitlines():
        if " each = " not in line:
            lines.append(lists.sub(written, line))
            continue
        line = line.replace(" each = ", " = ")
        first = next(lists.finditer(line))
        for n in range(len(group(first["name"]))):
            lines.append(lists.sub(functools.partial(written, only=n), line))
    return "\n".join(lines)
