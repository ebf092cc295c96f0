"""The loops of NAIS blocks in ONNX: templates, in which converted graphs replace two operators.

`Start` maps u to x(0) and the drive; `Update` maps x(k), k and the drive to x(k+1) - x(k). `axes`
are the axes of the state without the first. `STATE` and `DRIVE` are types with their sizes:
OpenVINO must know the rank of a convolution's input.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper, parser

from keras_iterconv.exporting.onnx_graph import inline

_FIXED = """
fixed (float[] u, int32 max_unroll) => (float[] state, int32[N] depth, int32[N] status)
<bool yes = {1}, float none = {0},
 int32 at_limit = {1}, int32 not_finite = {2}>
{
    start, drive = Start(u)
    limit = Cast<to = 7>(max_unroll)
    state = Loop<body = update (int64 k, bool go_on, STATE x) => (bool go_on_too, float[] x_new) {
        go_on_too = Identity(go_on)
        change = Update(x, k, drive)
        x_new = Add(x, change)
    }>(limit, yes, start)

    samples = Shape<start = 0, end = 1>(u)
    depth = Expand(max_unroll, samples)
    zeros = Mul(state, none)
    total = ReduceSum<keepdims = 0>(zeros, axes)
    finite = Equal(total, none)
    status = Where(finite, at_limit, not_finite)
}
"""

# A round updates all active samples until at least one of them stops; then the stopped samples are
# removed from the batch. A single sample also runs in rounds, so the file contains the update once:
# ONNX Runtime uses its fast convolutions only where the kernel is a constant of the same graph. Its
# ReduceL2 takes three times as long as the three operators of a norm here (64 images of 16x8x8: 74
# and 18 us), and its tool for symbolic shapes does not know ReduceL2 of this opset. The
# square root of (norm - threshold) is NaN where the norm is below the threshold or NaN. So a finite
# root means that a sample continues, and a finite sum that all do. `made` is one larger for samples
# that have not converged at the limit, and negative where the norm was infinite.
_ADAPTIVE = """
adaptive (float[] u, int32 max_unroll, float threshold)
    => (float[] state, int32[N] depth, int32[N] status)
<bool yes = {1}, int64 zero = {0}, int64 one = {1}, int64[1] flat = {-1}, int64[1] last_axis = {1},
 float none = {0}, float[1] unknown = {0}, float largest = {3.4028234663852886e+38},
 float smallest = {1.1754943508222875e-38},
 int32 converged = {0}, int32 at_limit = {1}, int32 not_finite = {2}>
{
    start, drive = Start(u)
    positive = Greater(threshold, none)
    floor = Where(positive, smallest, none)
    at_least = Max(threshold, floor)
    bound = Min(at_least, largest)
    given_limit = Cast<to = 7>(max_unroll)
    limit = Max(given_limit, one)
    samples = Shape<start = 0, end = 1>(u)
    count = Squeeze(samples)
    some = Cast<to = 9>(count)
    numbers = Range(zero, count, one)
    all_rows = Unsqueeze(numbers, last_axis)

    k_end, rows_end, x_end, drive_end, state, made_by_each = Loop<body = round
        (int64 number, bool some_were_left, int64 k, int64[n, 1] rows, STATE x,
         DRIVE drive_left, float[] end, int64[N] made)
        => (bool some_left, int64 k_next, int64[m, 1] rows_next, float[] x_next,
            float[] drive_next, float[] end_next, int64[N] made_next) {
        room = Sub(limit, k)
        k_next, x_new, roots = Loop<body = update
            (int64 step, bool all_moved, int64 k_old, STATE x_old, float[] roots_old)
            => (bool all_move, int64 k_new, float[] x_sum, float[] roots_new) {
            change = Update(x_old, k_old, drive_left)
            x_sum = Add(x_old, change)
            k_new = Add(k_old, one)
            squares = Mul(change, change)
            sums = ReduceSum<keepdims = 0>(squares, axes)
            norms = Sqrt(sums)
            excess = Sub(norms, bound)
            roots_new = Sqrt(excess)
            total = ReduceSum<keepdims = 0>(roots_new)
            all_move = LessOrEqual(total, largest)
        }>(room, yes, k, x, unknown)

        moves = LessOrEqual(roots, largest)
        one_more = Cast<to = 7>(moves)
        made_if_finite = Add(k_next, one_more)
        overflows = IsInf(roots)
        negative = Neg(k_next)
        made_by_round = Where(overflows, negative, made_if_finite)
        made_next = ScatterND(made, rows, made_by_round)
        end_next = ScatterND(end, rows, x_new)
        below_limit = Less(k_next, limit)
        goes_on = And(moves, below_limit)
        places = NonZero(goes_on)
        left = Reshape(places, flat)
        rows_next = Gather(rows, left)
        x_next = Gather(x_new, left)
        drive_next = Gather(drive_left, left)
        count_left = Size(left)
        some_left = Cast<to = 9>(count_left)
    }>(limit, some, zero, all_rows, start, drive, start, numbers)

    counted = Abs(made_by_each)
    updates = Min(counted, limit)
    depth = Cast<to = 6>(updates)
    zeros = Mul(state, none)
    total_of_each = ReduceSum<keepdims = 0>(zeros, axes)
    finite_state = Equal(total_of_each, none)
    finite_norm = Greater(made_by_each, zero)
    finite = And(finite_state, finite_norm)
    still_moving = Greater(made_by_each, limit)
    status_if_finite = Where(still_moving, at_limit, converged)
    status = Where(finite, status_if_finite, not_finite)
}
"""


def make_loop(parts: Mapping[str, onnx.GraphProto], adaptive: bool) -> onnx.GraphProto:
    """Return the graph of a block.

    Args:
        parts: Graphs of `Start` and `Update`. Their inputs beyond those of the operators become
            inputs of the block's graph, each name once.
        adaptive: Whether each sample stops by the threshold, or all make `max_unroll` updates.

    Returns:
        A graph from u, max_unroll, the threshold if adaptive, and the further inputs of the parts
        to state, depth and status.
    """
    template = _ADAPTIVE if adaptive else _FIXED
    state, _, drive = (value.type.tensor_type.shape.dim for value in parts["Update"].input[:3])
    for name, sizes in (("STATE", state), ("DRIVE", drive)):
        known = (str(size.dim_value) if size.HasField("dim_value") else "?" for size in sizes)
        template = template.replace(name, f"float[{', '.join(known)}]")
    graph = parser.parse_graph(template)
    graph.initializer.append(numpy_helper.from_array(np.arange(1, len(state)), "axes"))
    for operator, part in parts.items():
        inline(graph, operator, part)
    return graph
