"""What differs between the versions of JAX this library runs on; one small function for each difference."""

from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu


def transpose_ref(ref: Any) -> Any:
    """A view of a matrix in a kernel's memory with its axes swapped.

    From 0.11 on, references have a method for it and the function is deprecated.
    """
    return ref.transpose((1, 0)) if jax.__version_info__ >= (0, 11) else plgpu.transpose_ref(ref, (1, 0))


def interprets_mosaic_gpu() -> bool:
    """Whether Mosaic GPU kernels can be interpreted: the interpreter is public from 0.11 on."""
    return hasattr(plgpu, "InterpretGPUParams")


def interpret_mosaic_gpu() -> Any:
    """What `plgpu.kernel` takes as `interpret` to run on the host."""
    return plgpu.InterpretGPUParams()  # type: ignore[attr-defined, unused-ignore]


def load_slowly(ref: Any, layout: Any) -> Any:
    """A vector from global memory to registers, without the detour through shared memory; for small things.

    Before 0.11 the index is an argument of its own.
    """
    if jax.__version_info__ < (0, 11):
        return plgpu.load(ref, (), layout=layout, optimized=False)
    return plgpu.load(ref, layout=layout, optimized=False)  # type: ignore[call-arg, unused-ignore]
