"""The distribution strategies of a run: one device, all GPUs, or two logical CPUs."""

import tensorflow as tf

from iterconv.command_errors import UserError


def make_strategy(name: str, batch_size: int) -> tf.distribute.Strategy:
    """Return the `tf.distribute` strategy of a run.

    Args:
        name: `"none"`, or `"mirrored"`: a replica on each visible GPU or, without a GPU, on each
            of two logical CPUs that share this machine's cores (to test a distributed run, not to
            gain speed).
        batch_size: Number of images in a step, over all replicas.

    Raises:
        UserError: The batch cannot be divided evenly among the replicas, or TensorFlow is already
            running with one CPU.
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
                    "--strategy mirrored must be chosen before TensorFlow runs its first operation"
                ) from error
        devices = ["CPU:0", "CPU:1"]
        # Collectives on CPUs use keys of the process: a second run in the same process would get
        # the shapes of the first.
        reduction = tf.distribute.ReductionToOneDevice()
    if batch_size % len(devices):
        raise UserError(
            f"--batch-size must be a multiple of the {len(devices)} replicas: {batch_size}"
        )
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
