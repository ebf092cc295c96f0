"""The distribution strategies of a run: one device, several of this machine, or several workers."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf

from iterconv.command_errors import UserError
from keras_iterconv._support.replicas import count_workers

from .cluster import Cluster, find_cluster
from .join_guard import guarded
from .run_folder import RunFolder
from .worker_meeting import cannot_listen, meet
from .worker_watch import LOST, watched

# What TensorFlow says where a worker cannot be reached or has left, and the names of devices, which
# stand in messages of all kinds.
_LOST = re.compile(r"collective|worker|task|peer|socket|connect|heartbeat|coordination", re.I)
_DEVICE = re.compile(r"/job:\S+")
_LOST_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class WorkerLostError(UserError):
    """Error of a run one of whose workers has ended."""

    exit_code = 1


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Return the `tf.distribute` strategy of a run.

    Args:
        name: `"none"`; `"mirrored"`: a replica on each visible GPU or, without a GPU, on each of
            two logical CPUs that share this machine's cores (to test a distributed run, not to
            gain speed); or `"multiworker"`: the devices of several processes, on one machine or on
            several, which `TF_CONFIG` or Slurm's variables name.

    Raises:
        UserError: TensorFlow is already running with one CPU, or the workers are not named.
    """
    if name == "multiworker":
        return _join(find_cluster())
    # Not of Slurm's variables, which a job also has where it starts a single process.
    cluster = find_cluster() if os.environ.get("TF_CONFIG") else None
    if cluster is not None and len(cluster.addresses) > 1:
        raise UserError(
            f"TF_CONFIG names {len(cluster.addresses)} workers, each of which would train alone: "
            f"--strategy must be multiworker, or TF_CONFIG unset: {name}"
        )
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
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _join(cluster: Cluster | None) -> tf.distribute.Strategy:
    """Return the strategy of a worker, when all workers have started."""
    if cluster is None:
        raise UserError(
            "--strategy multiworker needs workers: on one machine start them with iterconv launch "
            "--workers 2 -- fit ...; on several set TF_CONFIG, or use Slurm's srun"
        )
    os.environ["TF_CONFIG"] = cluster.to_config()
    meet(cluster)
    try:
        with guarded(cluster):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "--strategy multiworker must be chosen before TensorFlow runs its first operation"
        ) from error
    except tf.errors.UnknownError as error:
        raise cannot_listen(cluster.addresses[cluster.worker], error.message) from error


def is_chief(name: str) -> bool:
    """Return whether this process is the one that writes the run's folder.

    Args:
        name: The name of the strategy.
    """
    cluster = find_cluster() if name == "multiworker" else None
    return cluster is None or cluster.worker == 0


@contextlib.contextmanager
def folder_of_worker(path: str | os.PathLike | None) -> Iterator[RunFolder]:
    """Yield a folder for a worker that is not the chief, which is removed at the end.

    All workers take the same steps, so that each of them writes all files; those of the chief
    stay.

    Args:
        path: The folder of a run to continue, whose files are copied; None for a new run.
    """
    with tempfile.TemporaryDirectory(prefix="iterconv-worker-") as place:
        folder = RunFolder(place)
        if path is not None:
            for file in RunFolder.open(path).files:
                if file.is_file():
                    shutil.copyfile(file, folder.path / file.name)
        yield folder


def share_batches(
    strategy: tf.distribute.Strategy, make: Callable, epoch: int, step: int
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Return the training batches for `fit`, of which each replica reads its share.

    Args:
        strategy: The strategy.
        make: Function `(epoch, step, replicas=, of=)` that returns the batches, or the shares of
            some replicas, as `keras_iterconv.datasets.training_batches`.
        epoch: The epoch to start at, from 0.
        step: The step of this epoch to start at, from 0.
    """
    if strategy.num_replicas_in_sync == 1:
        return make(epoch, step)

    def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = context.num_replicas_in_sync
        local = count // context.num_input_pipelines
        first = context.input_pipeline_id * local
        return make(epoch, step, replicas=range(first, first + local), of=count)

    return strategy.distribute_datasets_from_function(share)


def share_value(strategy: tf.distribute.Strategy, value: float) -> float:
    """Return the chief's value on all workers; a call that all of them must make."""
    if count_workers(strategy) < 2:
        return value
    chief = strategy.cluster_resolver.task_id == 0
    return float(strategy.reduce("SUM", tf.constant(value if chief else 0.0, tf.float64), None))


@contextlib.contextmanager
def watching_workers(name: str) -> Iterator[None]:
    """End this worker with a message when another one, or the launcher, has ended.

    TensorFlow's error for a lost worker becomes a `WorkerLostError`.

    Args:
        name: The name of the strategy.
    """
    try:
        with watched(find_cluster() if name == "multiworker" else None):
            yield
    except tf.errors.OpError as error:
        said = _DEVICE.sub("", str(error))
        if name != "multiworker" or not isinstance(error, _LOST_ERRORS) or not _LOST.search(said):
            raise
        raise WorkerLostError(LOST) from error
