"""Where TensorFlow would run a graph on a machine with a GPU, found out without one.

TensorFlow's wheel for Linux registers the kernels of GPUs, with the arguments that each of them
keeps in the memory of the host, on machines without a GPU too. Grappler's simulated devices answer
which operations a GPU can run, and its optimizers run as for a GPU. Together they give the device
of each operation, and the tensors that are copied between the two memories.
"""

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2
from tensorflow.core.protobuf import config_pb2, device_properties_pb2, meta_graph_pb2
from tensorflow.python.framework import convert_to_constants, kernels
from tensorflow.python.grappler import cluster as grappler_cluster
from tensorflow.python.grappler import item as grappler_item
from tensorflow.python.grappler import tf_optimizer

GPU = "/job:localhost/replica:0/task:0/device:GPU:0"
CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
_PROPERTIES = {
    # An H100, as far as Grappler asks.
    GPU: {"type": "GPU", "num_cores": 132, "frequency": 1700, "environment": {"architecture": "9"}},
    CPU: {"type": "CPU", "num_cores": 2, "frequency": 2000},
}
# The inputs of a graph, and operations without tensors.
_NOWHERE = {"NoOp", "Placeholder"}


class Copy(NamedTuple):
    """A tensor that is copied between the memories of host and GPU.

    Attributes:
        to_host: Whether it is copied to the host, which has to wait for the GPU then.
        operation: The type of the operation that computes the tensor.
        readers: The types of the operations that read the copy.
        dtype: Its dtype.
        loop: The loop in whose iterations it is copied; empty outside of loops.
    """

    to_host: bool
    operation: str
    readers: frozenset[str]
    dtype: str
    loop: str


def has_gpu_kernels() -> bool:
    """Return whether this build of TensorFlow registers the kernels of GPUs."""
    return any(kernel.device_type == "GPU" for kernel in _kernels("Conv2D"))


def node_defs(function: Any) -> Iterator:
    """Yield the nodes of a concrete function and of all functions that it calls."""
    graph_def = function.graph.as_graph_def()
    yield from graph_def.node
    for body in graph_def.library.function:
        yield from body.node_def


def lowered(function: Any) -> tf.Graph:
    """Return what the executor of TensorFlow would run for a concrete function: a single graph.

    Functions are inlined, and `while` and `cond` are the operations of the executor. Grappler's
    optimizers have run as for a GPU.
    """
    graph_def = convert_to_constants._run_inline_graph_optimization(
        function, lower_control_flow=True, aggressive_inlining=True
    )
    shapes = {z.op.name: z.shape.as_proto() for z in function.inputs}
    for node in graph_def.node:
        if node.name in shapes:
            node.attr["shape"].shape.CopyFrom(shapes[node.name])
    graph = _imported(graph_def)
    meta_graph = _meta_graph(graph, [z.op.name for z in function.outputs])
    placed = on_gpu(graph)
    for node in meta_graph.graph_def.node:
        node.device = GPU if placed.get(node.name) else CPU
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    return _imported(tf_optimizer.OptimizeGraph(config, meta_graph, cluster=_cluster()))


def _imported(graph_def: Any) -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return graph


def _meta_graph(graph: tf.Graph, fetches: Sequence[str]) -> meta_graph_pb2.MetaGraphDef:
    with graph.as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(graph=graph)
    meta_graph.collection_def["train_op"].node_list.value.extend(fetches)
    return meta_graph


@functools.cache
def _cluster() -> grappler_cluster.Cluster:
    devices = [
        device_properties_pb2.NamedDevice(
            name=name, properties=device_properties_pb2.DeviceProperties(**properties)
        )
        for name, properties in _PROPERTIES.items()
    ]
    return grappler_cluster.Cluster(devices=devices)


def loops(graph: tf.Graph) -> dict[str, str]:
    """Return the loop of each operation by name; `"outer > inner"`, or empty outside of loops."""
    found: dict[str, str] = {}
    waiting = list(graph.get_operations())
    while waiting:
        later = []
        for op in waiting:
            before = [*(z.op for z in op.inputs), *op.control_inputs]
            known = [found[other.name] for other in before if other.name in found]
            # A loop begins with an operation that reads its own end too.
            if before and not known:
                later.append(op)
            elif op.type == "Enter":
                name = op.get_attr("frame_name").decode()
                found[op.name] = f"{known[0]} > {name}" if known[0] else name
            elif op.type == "Exit":
                found[op.name] = known[0].rpartition(" > ")[0]
            else:
                found[op.name] = max(known, key=len, default="")
        waiting = later
    return found


def innermost(all_loops: set[str]) -> set[str]:
    """Return the loops without a loop inside."""
    return {
        loop
        for loop in all_loops
        if loop and not any(other.startswith(f"{loop} > ") for other in all_loops)
    }


def on_gpu(graph: tf.Graph) -> dict[str, bool]:
    """Return for each operation by name whether it runs on a GPU, as it does where it can."""
    names = [op.name for op in graph.get_operations()]
    found = _cluster().GetSupportedDevices(grappler_item.Item(_meta_graph(graph, names[-1:])))
    return {
        op.name: GPU in found.get(op.name, ()) and _kernel(op) is not None and not _of_counter(op)
        for op in graph.get_operations()
        if op.type not in _NOWHERE
    }


def _of_counter(op: tf.Operation) -> bool:
    """Return whether an operation reads or writes a variable of int32, which no GPU holds."""
    variable = any(z.dtype == tf.resource for z in op.inputs)
    return variable and "dtype" in op.node_def.attr and op.get_attr("dtype") == tf.int32


def copies(graph: tf.Graph) -> list[Copy]:
    """Return the tensors that are copied between the memories, each once."""
    placed, loop_of = on_gpu(graph), loops(graph)
    readers: dict = collections.defaultdict(set)
    for op in graph.get_operations():
        if op.type not in _NOWHERE:
            for tensor, on_host in zip(op.inputs, _in_host(op, placed, "input"), strict=True):
                readers[tensor.ref(), on_host].add(op.type)
    found = []
    for (ref, read_on_host), types in readers.items():
        tensor = ref.deref()
        if tensor.op.type in _NOWHERE or tensor.dtype in (tf.resource, tf.variant):
            continue
        if _in_host(tensor.op, placed, "output")[tensor.value_index] != read_on_host:
            name, loop = tensor.op.type, loop_of[tensor.op.name]
            found.append(Copy(read_on_host, name, frozenset(types), tensor.dtype.name, loop))
    return found


def _in_host(op: tf.Operation, placed: dict[str, bool], side: str) -> list[bool]:
    """Return which inputs, or outputs, of an operation lie in the memory of the host."""
    names = []
    for argument in getattr(op.op_def, f"{side}_arg"):
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        names += [argument.name] * count
    if not placed[op.name]:
        return [True] * len(names)
    host = set(_kernel(op).host_memory_arg)
    return [name in host for name in names]


def _kernel(op: tf.Operation) -> kernel_def_pb2.KernelDef | None:
    """Return the kernel that runs on a GPU: one of GPUs, else one of any device, else None."""
    values = {name: op.get_attr(name) for name in _constrained(op.type)}
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return _find_kernel(op.type, tuple((name, tuple(each)) for name, each in lists.items()))


@functools.cache
def _kernels(operation: str) -> tuple[kernel_def_pb2.KernelDef, ...]:
    return tuple(kernels.get_registered_kernels_for_op(operation).kernel)


@functools.cache
def _constrained(operation: str) -> list[str]:
    """Return the names of the attributes, such as dtypes, on which kernels depend."""
    return sorted({each.name for kernel in _kernels(operation) for each in kernel.constraint})


@functools.cache
def _find_kernel(operation: str, attributes: tuple) -> kernel_def_pb2.KernelDef | None:
    values = dict(attributes)
    for device in ("GPU", "DEFAULT"):
        for kernel in _kernels(operation):
            if kernel.device_type == device and not kernel.label and _fits(kernel, values):
                return kernel
    return None


def _fits(kernel: kernel_def_pb2.KernelDef, values: dict[str, tuple]) -> bool:
    """Return whether a kernel is for these values of the attributes."""
    for constraint in kernel.constraint:
        allowed = constraint.allowed_values.list
        for each in values[constraint.name]:
            if isinstance(each, tf.DType):
                each = each.as_datatype_enum
            if each not in (allowed.type or allowed.s):
                return False
    return True
