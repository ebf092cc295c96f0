"""Replicas: none, all GPUs, or two logical CPUs."""

import tensorflow as tf

from iterconv.command_errors import UserError


def make_strategy(name: str, batch_size: int) -> tf.distribute.Strategy:
    """Return the strategy that a run trains under.

    Args:
        name: `"none"`, or `"mirrored"`: a replica on each visible GPU or, where there is none, on
            each of two logical CPUs that share this machine's cores (to try a distributed run, not
            to gain speed).
        batch_size: Images a step, over all replicas.

    Raises:
        UserError: The batch cannot be divided evenly, or TensorFlow runs already with one CPU.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    reduction = None
    devices = [f"GPU:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    if not devices:
        cpu = tf.config.list_physical_devices("CPU")[0]
        if tf.config.get_logical_device_configuration(cpu) is None:
            try:
                tf.config.set_logical_device_configuration(
                    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
                )
            except RuntimeError as error:
                raise UserError(
                    "--strategy mirrored must be chosen before TensorFlow runs anything"
                ) from error
        devices = ["CPU:0", "CPU:1"]
        # The keys of collectives on CPUs are those of the process: a second run in it would find
        # the first one's shapes.
        reduction = tf.distribute.ReductionToOneDevice()
    if batch_size % len(devices):
        raise UserError(
            f"--batch-size must be a multiple of the {len(devices)} replicas: {batch_size}"
        )
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
