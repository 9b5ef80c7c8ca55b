"""Programs as StableHLO: a function and its weights in one file of bytes that JAX alone can run.

The format is that of `jax.export`, whose documentation says for how many months old files stay readable.  What is
exported contains no Python and no call back into it: kernels are lowered for the platforms asked for, and the CPU
multiplies by plain XLA operations, because the native kernel is a library of the machine that built it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
from jaxtyping import PyTree

from compressjax import trees
from compressjax.runtime._target import target

_PLATFORMS = {"cpu": "cpu", "tpu": "tpu", "cuda": "gpu"}
# Kernels compiled into the module: their format is that of the JAX release that wrote it.
_KERNELS = ("mosaic_gpu_v2", "tpu_custom_call")


def export(
    function: Callable[[Any, Any], Any],
    params: trees.Tree,
    x: PyTree,
    *,
    platforms: Sequence[str] = ("cpu",),
    symbolic: bool = True,
    implementation: str = "auto",
) -> bytes:
    """Lowers ``function(params, x)``, with `params` inside, for platforms that need not be present.

    Args:
      function: Pure; takes parameters and inputs.
      params: Packed or dense parameters.
      x: Inputs, or `jax.ShapeDtypeStruct` in their place; a tree of them if there are several.
      platforms: Of "cpu", "tpu" and "cuda".  Several in one file multiply by "xla": kernels are for one platform.
      symbolic: Whether the first axis of all inputs is the batch and may have any size.
      implementation: "auto", or one of `pallas_kernels.IMPLEMENTATIONS`; on the CPU "auto" is "xla".

    Returns:
      The program, for `load`.

    Raises:
      ValueError: For unknown platforms, or an implementation that cannot be exported.

    >>> import jax.numpy as jnp
    >>> from compressjax.runtime import As, linear, pack
    >>> params = pack({"w": 2 * jnp.eye(4)}, {"w": As(block=(2, 2))})
    >>> program = load(export(lambda p, x: linear(x, p["w"]), params, jnp.ones((1, 4))))
    >>> program(jnp.ones((3, 4))).sum(1).tolist()
    [8.0, 8.0, 8.0]
    """
    unknown = [name for name in platforms if name not in _PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms={tuple(platforms)}: name at least one of {', '.join(_PLATFORMS)}.")
    if implementation in ("native", "reference"):
        raise ValueError(f"implementation={implementation!r} runs code of this process and cannot be exported.")
    if implementation == "auto" and (len(platforms) > 1 or "cpu" in platforms):
        implementation = "xla"
    bound = target(params, _PLATFORMS[platforms[0]], implementation)
    inputs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    if symbolic:
        inputs = _with_batch(inputs)
    lower = jax.export.export(
        jax.jit(lambda given: function(bound, given)),
        platforms=list(platforms),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(name) for name in _KERNELS],
    )
    return bytes(lower(inputs).serialize())


def load(data: bytes) -> Callable[[Any], Any]:
    """The program in the bytes of `export`.

    Args:
      data: What `export` returned.

    Returns:
      A compiled function of the inputs.  Called on a platform it was not exported for, it raises `ValueError`.

    Raises:
      ValueError: If the bytes are no such program.

    >>> import jax.numpy as jnp
    >>> load(export(lambda p, x: p * x, jnp.float32(2), jnp.ones(3)))(jnp.ones(5)).tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    try:
        exported = jax.export.deserialize(bytearray(data))
    except Exception as error:  # what the reader of the format raises depends on where the bytes break
        raise ValueError("These bytes are no program written by runtime.export: they cannot be read.") from error
    return jax.jit(exported.call)


def _with_batch(inputs: PyTree) -> PyTree:
    if any(not leaf.shape for leaf in jax.tree.leaves(inputs)):
        raise ValueError("A number has no batch axis: pass inputs with at least one axis, or symbolic=False.")
    (batch,) = jax.export.symbolic_shape("batch")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), inputs)
