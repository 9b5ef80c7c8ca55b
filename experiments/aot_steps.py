"""The training steps of ``--distributed``, compiled for a pod that is not there: ``python -m experiments.aot_steps``.

A step is what `experiments.fitting.SharedTrainer` runs: batches split over the "data" axis of a mesh, everything else
whole on every device.  `lower` writes it for TPUs on any machine, and the TPU compiler, which needs no TPU (see
`experiments.aot_tpu`), compiles it for all devices of a slice.  Nothing is run.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from compressjax import zoo
from compressjax.zoo import Model
from experiments.aot_tpu import use_compiler
from experiments.distributed import make_mesh
from experiments.fitting import Carry, Teacher, make_update, shared_programs
from experiments.launch import refuse_arguments
from experiments.phases import nonzero_masks, optimizer, solver_admm
from experiments.schema import Admm, Fit

_SLICES = flags.DEFINE_list("slices", ["v5e:4x4"], "Slices of TPUs to compile for.")
SCANNED = 16  # steps in one program, of those that scan


@dataclass(frozen=True)
class Step:
    """One training step of a program.

    Attributes:
      model: Name in the zoo.
      batch: Images over all devices.
      fit: What is trained.
      transform: (fit, parameters) -> optax transform.
      taught: Whether a teacher's logits come along.
      scanned: Whether `SCANNED` steps are one program.
      input_shape: Of an image.
    """

    model: str
    batch: int
    fit: Fit
    transform: Callable[[Any, Any], Any] = lambda fit, params: optimizer(fit, 1000)
    taught: bool = False
    scanned: bool = False
    input_shape: tuple[int, ...] = (28, 28, 1)

    def build(self) -> Model:
        return zoo.build(self.model, classes=10, input_shape=self.input_shape)


def masked_admm(fit: Admm, params: Any) -> Any:
    """Training towards a quarter of the weights of every kernel, pruned ones staying zero."""
    from compressjax import projections, training, trees

    kernels = {path: leaf.size // 4 for path, leaf in trees.leaves(params).items() if path.endswith("kernel")}
    rules = {path: projections.Cardinality(count) for path, count in kernels.items()}
    return training.masked(solver_admm(fit, rules, 1000), nonzero_masks(params, rules))


CIFAR = (32, 32, 3)
SGD = Fit(optimizer="sgd", learning_rate=0.1, weight_decay=1e-4, shift=4, flip=True)
STEPS = {
    "compress: lenet5, Adam": Step("lenet5", 1024, Fit(shift=1)),
    "compress: lenet5, ADMM, taught": Step("lenet5", 1024, Admm(shift=1), masked_admm, taught=True),
    "compress: the same, scanned": Step("lenet5", 1024, Admm(shift=1), masked_admm, taught=True, scanned=True),
    "shrink: resnet20, SGD": Step("resnet20", 1024, SGD, input_shape=CIFAR),
    "shrink: the same, scanned": Step("resnet20", 1024, SGD, scanned=True, input_shape=CIFAR),
}


def lower(step: Step, mesh: Any) -> Any:
    """The program of a step over a mesh (or an abstract one), written for TPUs.

    Returns:
      A `jax.stages.Lowered`.
    """
    model = step.build()
    params = model.init(jax.random.key(0))
    transform = step.transform(step.fit, params)
    shifts = (2 * step.fit.shift + 1) ** 2
    teacher = Teacher(jnp.zeros((shifts, 1, 10)), 0.5, 2.0) if step.taught else None
    update = make_update(model, transform, shift=step.fit.shift, flip=step.fit.flip, teacher=teacher)
    one, many = shared_programs(update, mesh)
    carry = Carry(
        params,
        jax.eval_shape(transform.init, params),
        jnp.zeros(len(jax.tree.leaves(params)), jnp.int32),
        jnp.zeros((), jnp.float32),
    )
    whole = NamedSharding(mesh, PartitionSpec())
    carry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), carry)
    rows = (step.batch, SCANNED) if step.scanned else (step.batch,)

    def shared(shape: tuple[int, ...], dtype: Any, axis: int = 0) -> jax.ShapeDtypeStruct:
        split = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

    table = (shifts, *rows, 10) if step.taught else (1, *rows, 0)
    number = jax.ShapeDtypeStruct(rows[1:], jnp.int32, sharding=whole)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=whole)
    program: Any = many if step.scanned else one
    return program.trace(
        carry,
        shared((*rows, *step.input_shape), jnp.uint8),
        shared(rows, jnp.int32),
        shared(table, jnp.float32, 1),
        number,
        key,
    ).lower(lowering_platforms=("tpu",))


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    use_compiler()
    meshes = {name: make_mesh(devices=topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
              for name in _SLICES.value}  # fmt: skip
    print(f"JAX {jax.__version__}: seconds to compile a training step, and all-reduces in it")
    print(f"{'step':36s}" + "".join(f"{f'{name} ({mesh.size})':>20s}" for name, mesh in meshes.items()))
    for title, step in STEPS.items():
        cells = []
        for mesh in meshes.values():
            begin = time.perf_counter()
            text = lower(step, mesh).compile().as_text() or ""
            cells.append(f"{time.perf_counter() - begin:.1f} s, {text.count(' all-reduce(')}")
        print(f"{title:36s}" + "".join(f"{cell:>20s}" for cell in cells), flush=True)
    print("All compile.")
    sys.exit(0)


if __name__ == "__main__":
    app.run(main)
