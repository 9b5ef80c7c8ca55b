"""Many processes, one run: ``--distributed`` on compress, shrink and evolve.

JAX's own runtime does the work: it starts the processes' coordination, makes one device list of all machines, and
carries what the processes tell each other.  A `Fleet` is what a run knows of it: which process this is, the mesh of
all devices, and whether the run was asked to stop.  A network is trained data parallel: parameters whole on every
device, each batch split over the devices, so that the numbers are those of one process up to the order of sums.

Process 0 writes the run's directory, which every process must see; checkpoints are written by all, through Orbax.
"""

import json
import math
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax
    import numpy as np

AXES = ("data", "population", "model")
HEARTBEAT = 100  # seconds without a sign of life after which a process counts as lost
STRIDE = 16  # steps between two moments at which processes ask each other whether to stop


class Preempted(Exception):
    """The run was asked to stop, and did so where it can go on."""


def peer_lost(error: BaseException) -> bool:
    """Whether an error says that another process of this run cannot be reached.

    Such errors have no type of their own (Gloo's can be a ValueError, like Orbax's of a full disk); what tells them is
    where they come from: the modules of JAX and of Orbax in which processes talk to each other.
    """
    frames = traceback.walk_tb(error.__traceback__)
    return any("multihost" in frame.f_globals.get("__name__", "") for frame, _ in frames)


def never() -> bool:
    """A run that nobody stops."""
    return False


@dataclass(frozen=True)
class Fleet:
    """The processes of a run, seen from one of them.

    Attributes:
      index: Of this process; process 0 leads.
      count: Number of processes.
      mesh: All their devices, with the axes of `AXES`; None outside ``--distributed``.
      stopping: Whether the run is to stop here; all processes call it together, and it says the same to each.
      stride: Training steps between two such calls.
    """

    index: int = 0
    count: int = 1
    mesh: "jax.sharding.Mesh | None" = None
    stopping: Callable[[], bool] = never
    stride: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and talks to the terminal."""
        return self.index == 0

    def agree(self, value: int) -> int:
        """What process 0 says; the others wait for it."""
        if self.count == 1:
            return int(value)
        import numpy as np
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    def lead(self, act: Callable[[], Any]) -> None:
        """Lets process 0 act, and the others wait until it is done.

        Raises:
          ValueError: On every process, if it failed on process 0.
        """
        if self.count == 1:
            act()
            return
        failure: Exception | None = None
        if self.leads:
            try:
                act()
            except (ValueError, OSError) as error:
                failure = error
        failed = self.agree(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise ValueError("Process 0 of this run failed; its message says why.")

    def gather(self, value: Any) -> list[Any]:
        """A JSON value of every process, in the order of the processes, on every process."""
        if self.count == 1:
            return [value]
        import numpy as np
        from jax.experimental import multihost_utils

        mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = np.ravel(multihost_utils.process_allgather(np.int32(mine.size)))
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: mine.size] = mine
        rows = np.asarray(multihost_utils.process_allgather(padded))
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def same(self, tree: Any) -> Any:
        """Arrays that every process computed for itself, as process 0 has them.

        Raises:
          ValueError: If their shapes differ between processes.
        """
        if self.count == 1:
            return tree
        import jax
        import numpy as np
        from jax.experimental import multihost_utils

        tree = jax.tree.map(np.asarray, tree)
        shapes = self.gather([[list(leaf.shape), str(leaf.dtype)] for leaf in jax.tree.leaves(tree)])
        if any(found != shapes[0] for found in shapes):
            raise ValueError(
                "The processes of this run arrived at networks of different shapes; start all of them on the same "
                "kind of machine, with the same version of the code."
            )
        return multihost_utils.broadcast_one_to_all(tree)

    def replicate(self, tree: Any) -> Any:
        """Arrays that every process holds, as arrays that lie whole on every device of the mesh."""
        if self.mesh is None:
            return tree
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: _place(leaf, whole), tree)

    def local(self, tree: Any) -> Any:
        """Inverse of `replicate`: the copies on a device of this process."""
        if self.mesh is None:
            return tree
        import jax

        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def feed(self, rows: "Callable[[np.ndarray], np.ndarray]", index: "np.ndarray", axis: int = 0) -> "jax.Array":
        """A batch split over the mesh, of which every process reads the rows of its own devices and no others.

        Args:
          rows: Row numbers -> these rows of the data, with the rows along `axis`.
          index: (batch,) row numbers of the whole batch, the same on every process.
          axis: Of the result that runs over the batch.

        Returns:
          ``rows(index)``, sharded along `axis`.
        """
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        assert self.mesh is not None
        like = rows(index[:1])
        shape = (*like.shape[:axis], len(index), *like.shape[axis + 1 :])
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "data"))
        return jax.make_array_from_callback(shape, sharding, lambda where: rows(index[(where or ())[axis]]))

    def check_batch(self, size: int) -> None:
        """Raises `ValueError` unless the devices can share a batch evenly."""
        shares = 1 if self.mesh is None else self.mesh.shape["data"]
        if size % shares:
            raise ValueError(
                f"config.batch_size is {size}, which {shares} devices cannot share evenly; "
                f"choose a multiple of {shares}, such as {math.ceil(size / shares) * shares}."
            )


ALONE = Fleet()


def _place(leaf: Any, sharding: Any) -> Any:
    import jax
    import numpy as np

    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda where: value[where])


def make_mesh(population: int = 1, model: int = 1, *, devices: Any = None) -> "jax.sharding.Mesh":
    """All devices of all processes under the axes of `AXES`.

    Args:
      population: Networks side by side (`compressjax.search.sharded` splits a population over this axis).
      model: Devices that share one network's parameters.
      devices: Others than all of JAX's.

    Returns:
      A mesh; whatever the other axes leave is "data".

    Raises:
      ValueError: If the devices do not divide.

    >>> import jax
    >>> make_mesh(devices=jax.devices()[:1]).shape["model"]
    1
    """
    import jax
    from jax.sharding import AxisType

    devices = jax.devices() if devices is None else devices
    if len(devices) % (population * model):
        raise ValueError(f"{len(devices)} devices do not divide into {population} x {model} (population x model).")
    shape = (len(devices) // (population * model), population, model)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def until_sigterm() -> Fleet:
    """One process that stops at the next step after a SIGTERM."""
    return Fleet(stopping=sigterm())


def sigterm() -> Callable[[], bool]:
    """From now on a SIGTERM does not end this process: it makes the answer of the returned function yes."""
    received = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: received.set())
    return received.is_set


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat: int = HEARTBEAT,
) -> Fleet:
    """Joins this process with the others of its run; before anything else that uses a device.

    Args:
      coordinator_address: ``host:port`` of process 0; None, like the two below, asks the machine: Cloud TPU, SLURM,
        Open MPI and Kubernetes know.
      num_processes: Of the run.
      process_id: Of this one, from 0.
      heartbeat: Seconds without a sign of life after which a process counts as lost and the others end.

    Returns:
      The fleet; it stops, all processes at one step, after any of them received a SIGTERM.

    Raises:
      ValueError: If nothing says who the others are, or they cannot be reached.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    # JAX's own service counts steps, and Orbax tells it those of its checkpoints, which are not those of a search.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=heartbeat)
    except (ValueError, RuntimeError) as error:
        reason = f"{error}".partition("\n")[0]
        raise ValueError(
            f"--distributed could not join the processes of this run ({reason}); outside Cloud TPU, SLURM, Open MPI "
            "and Kubernetes pass --coordinator_address=HOST:PORT, --num_processes and --process_id to each of them."
        ) from error
    received = sigterm()

    def stopping() -> bool:
        return bool(np.max(multihost_utils.process_allgather(np.int32(received()))))

    return Fleet(jax.process_index(), jax.process_count(), make_mesh(), stopping, STRIDE)
