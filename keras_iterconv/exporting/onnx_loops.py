"""The loops of iterated blocks in ONNX: templates, in which graphs replace two operators.

`Start` maps the inputs to x(0), the drives, and what the stopping rule remembers. `Update` maps
x(k), k, the drives, that memory and the threshold to x(k+1), the new memory and the excess of each
sample: at least 0 where the sample goes on, less where it has converged, and NaN or infinite where
what the rule measured is not finite. A name between dollars is a list of tensors, with their types
where a graph declares them: OpenVINO must know the rank of a convolution's input.
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper, parser

from keras_iterconv.exporting.onnx_graph import inline

_FIXED = """
fixed ($typed u$, int32 max_unroll) => ($any state$, int32[N] depth, int32[N] status)
<bool yes = {1}, float none = {0}, int32 at_limit = {1}, int32 not_finite = {2}>
{
    $start$, $drive$ = Start($u$)
    limit = Cast<to = 7>(max_unroll)
    $state$ = Loop<body = update (int64 k, bool go_on, $typed x$)
        => (bool go_on_too, $any x_new$) {
        go_on_too = Identity(go_on)
        $x_new$ = Update($x$, k, $drive$)
    }>(limit, yes, $start$)

    samples = Shape<start = 0, end = 1>(u0)
    depth = Expand(max_unroll, samples)
    $zeros$ each = Mul($state$, none)
    $total$ each = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>($zeros$, $axes$)
    all_totals = Sum($total$)
    finite = Equal(all_totals, none)
    status = Where(finite, at_limit, not_finite)
}
"""

# Updates all samples until at least one of them stops. The square root of the excess is NaN where
# a sample has converged. So a finite root means that it goes on, and a finite sum that all do.
_ADVANCE = """
advance (int64 room, int64 k, $typed x$, $typed drive$, $typed memory$, float bound)
    => (int64 k_next, $any x_next$, $any memory_next$, float[] excess)
<bool yes = {1}, int64 one = {1}, float[1] unknown = {0}, float largest = {3.4028234663852886e+38}>
{
    k_next, $x_next$, $memory_next$, excess = Loop<body = update
        (int64 step, bool all_moved, int64 k_old, $typed x_old$, $typed memory_old$,
         float[] excess_old)
        => (bool all_move, int64 k_new, $any x_new$, $any memory_new$, float[] excess_new) {
        $x_new$, $memory_new$, excess_new = Update($x_old$, k_old, $drive$, $memory_old$, bound)
        k_new = Add(k_old, one)
        roots = Sqrt(excess_new)
        total = ReduceSum<keepdims = 0>(roots)
        all_move = LessOrEqual(total, largest)
    }>(room, yes, k, $x$, $memory$, unknown)
}
"""

# A single sample advances once. Several do in rounds, after each of which the stopped samples are
# removed from the batch. ONNX Runtime computes the bound and the limit once for all blocks, as no
# inner graph reads their constants. The last `Where` changes nothing: without it OpenVINO (2026.4)
# reads the updates of the last block before they are written, in the first run with a batch size.
_ADAPTIVE = """
adaptive ($typed u$, int32 max_unroll, float threshold)
    => ($any state$, int32[N] depth, int32[N] status)
<bool yes = {1}, int64 zero = {0}, int64 one = {1}, int64[1] single = {1}, int64[1] flat = {-1},
 int64[1] last_axis = {1}, float[1] unknown = {0},
 float none = {0}, float largest = {3.4028234663852886e+38},
 float smallest = {1.1754943508222875e-38},
 int32 converged = {0}, int32 at_limit = {1}, int32 not_finite = {2}>
{
    $start$, $drive$, $memory$ = Start($u$)
    positive = Greater(threshold, none)
    floor = Where(positive, smallest, none)
    bound = Clip(threshold, floor, largest)
    given_limit = Cast<to = 7>(max_unroll)
    limit = Max(given_limit, one)
    samples = Shape<start = 0, end = 1>(u0)
    is_single = Equal(samples, single)

    $state$, excess_end, updates = If(is_single) <then_branch = alone ()
        => ($any x_alone$, float[] excess_alone, int32[] updates_alone) {
        k_alone, $x_alone$, $memory_alone$, excess_alone = Advance(
            limit, zero, $start$, $drive$, $memory$, bound)
        count_alone = Cast<to = 6>(k_alone)
        updates_alone = Expand(count_alone, samples)
    }, else_branch = together ()
        => ($any x_together$, float[] excess_together, int32[] updates_together) {
        count = Squeeze(samples)
        some = Cast<to = 9>(count)
        numbers = Range(zero, count, one)
        all_rows = Unsqueeze(numbers, last_axis)
        not_known = Expand(unknown, samples)
        k_end, rows_end, $x_end$, $drive_end$, $memory_end$, $x_together$, excess_together,
            made_together = Loop<body = round
            (int64 number, bool some_were_left, int64 k, int64[n, 1] rows, $typed x$,
             $typed drive_left$, $typed memory_left$, $typed end$, float[] excess_before,
             int64[] made)
            => (bool some_left, int64 k_next, int64[m, 1] rows_next, $any x_next$,
                $any drive_next$, $any memory_next$, $any end_next$, float[] excess_next,
                int64[] made_next) {
            room = Sub(limit, k)
            k_next, $x_new$, $memory_new$, excess = Advance(
                room, k, $x$, $drive_left$, $memory_left$, bound)
            $end_next$ each = ScatterND($end$, rows, $x_new$)
            excess_next = ScatterND(excess_before, rows, excess)
            left_before = Shape(excess)
            made_by_round = Expand(k_next, left_before)
            made_next = ScatterND(made, rows, made_by_round)
            roots = Sqrt(excess)
            moves = LessOrEqual(roots, largest)
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
        }>(limit, some, zero, all_rows, $start$, $drive$, $memory$, $start$, not_known, numbers)
        updates_together = Cast<to = 6>(made_together)
    }>

    $zeros$ each = Mul($state$, none)
    $total$ each = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>($zeros$, $axes$)
    measured = Sum(excess_end, $total$)
    finite = LessOrEqual(measured, largest)
    still_moving = GreaterOrEqual(measured, none)
    status_if_finite = Where(still_moving, at_limit, converged)
    status = Where(finite, status_if_finite, not_finite)
    depth = Where(finite, updates, updates)
}
"""

# The groups of names in a template: those of the inputs, the drives and the memory; all others are
# those of the state.
_GROUPS = {"u": "inputs", "drive": "drives", "memory": "memory"}
_KINDS = {tf.float32: "float", tf.int32: "int32", tf.int64: "int64"}


def make_loop(
    start: onnx.GraphProto,
    update: onnx.GraphProto,
    specs: Mapping[str, Sequence[tf.TensorSpec]],
    adaptive: bool,
) -> onnx.GraphProto:
    """Return the graph of a block.

    Args:
        start: The graph of `Start`; without the memory for a fixed depth.
        update: The graph of `Update`; for a fixed depth from x(k), k and the drives to x(k+1).
            Inputs of both graphs beyond those of the operators become inputs of the block's graph,
            each name once.
        specs: The specifications of the tensors of each group: `"inputs"`, `"state"`, `"drives"`
            and `"memory"`.
        adaptive: Whether each sample stops by the threshold, or all make `max_unroll` updates.

    Returns:
        A graph from the inputs, max_unroll, the threshold if adaptive, and the further inputs to
        the state, depth and status.
    """
    graph = parser.parse_graph(_fill(_ADAPTIVE if adaptive else _FIXED, specs))
    for number, state in enumerate(specs["state"]):
        axes = np.arange(1, state.shape.rank)
        graph.initializer.append(numpy_helper.from_array(axes, f"axes{number}"))
    inline(graph, "Start", start)
    if adaptive:
        advance = parser.parse_graph(_fill(_ADVANCE, specs))
        inline(advance, "Update", update)
        inline(graph, "Advance", advance)
    else:
        inline(graph, "Update", update)
    return graph


def _fill(template: str, specs: Mapping[str, Sequence[tf.TensorSpec]]) -> str:
    """Return a template with its lists of names and types written out."""

    def group(name):
        return specs[_GROUPS.get(name.split("_")[0], "state")]

    def written(match, only=None):
        kind, name = match["kind"], match["name"]
        names = []
        for number, spec in enumerate(group(name)):
            if only in (None, number):
                declared = f"{_type(spec, kind == 'typed')} " if kind else ""
                names.append(f"{declared}{name}{number}")
        return ", ".join(names)

    lists = re.compile(r"\$(?:(?P<kind>typed|any) )?(?P<name>\w+)\$")
    lines = []
    for line in template.splitlines():
        if " each = " not in line:
            lines.append(lists.sub(written, line))
            continue
        line = line.replace(" each = ", " = ")
        first = next(lists.finditer(line))
        for number in range(len(group(first["name"]))):
            lines.append(lists.sub(functools.partial(written, only=number), line))
    # An empty list leaves a comma too many.
    return re.sub(r",(?=\s*[,)=])", "", "\n".join(lines))


def _type(spec: tf.TensorSpec, sizes: bool) -> str:
    """Return the type of a tensor in the text of a template, with its known sizes or without."""
    known = ("?" if size is None else str(size) for size in spec.shape)
    return f"{_KINDS[spec.dtype]}[{', '.join(known) if sizes else ''}]"
