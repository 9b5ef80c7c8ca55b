"""Which implementation computes a product."""

from types import ModuleType
from typing import Any

import jax

from pallas_kernels import mosaic_gpu, mosaic_tpu, native, reference, xla
from pallas_kernels._interface import Format, Implementation
from pallas_kernels.sliced import Sliced

# "auto" takes the first that runs on the platform and does not refuse; `prepare` knows better, by measurement.
MODULES: dict[str, ModuleType] = {
    "mosaic_tpu": mosaic_tpu,
    "mosaic_gpu": mosaic_gpu,
    "native": native,
    "xla": xla,
    "reference": reference,
}
IMPLEMENTATIONS = tuple(MODULES)


def refusal(
    name: str, operation: str, x: Any, w: Format, platform: str | None = None, interpret: bool = False
) -> str | None:
    """Why an implementation cannot compute `operation` for these operands; None if it can.

    Args:
      name: One of `IMPLEMENTATIONS`.
      operation: "matmul", "transposed" or "outer".
      x: The activations (or cotangents), or their `jax.ShapeDtypeStruct`.
      w: Packed weights.
      platform: "cpu", "gpu" or "tpu"; default: JAX's default backend.
      interpret: Whether Pallas kernels are interpreted, which every platform can.

    Raises:
      ValueError: If there is no such implementation.
    """
    if name not in MODULES:
        raise ValueError(f"There is no implementation {name!r}; choose auto or one of {', '.join(MODULES)}.")
    module = MODULES[name]
    platform = platform_name(platform)
    if platform not in module.PLATFORMS and not (interpret and "mosaic" in name):
        return f"it runs on {' and '.join(module.PLATFORMS)}, and this program is for {platform}"
    if isinstance(w, Sliced) and name not in ("xla", "reference"):
        return "slices are a layout for xla on the CPU"
    if name == "mosaic_gpu" and not interpret and (other := _other_gpu()):
        return f"its kernels are for Hopper GPUs (compute capability 9.0), and this one has {other}"
    return module.refuse(operation, jax.ShapeDtypeStruct(x.shape, x.dtype), w, interpret)


def implementation_of(
    name: str,
    operation: str,
    x: Any,
    w: Format,
    platform: str | None = None,
    interpret: bool = False,
    strict: bool = True,
) -> Implementation:
    """The module to call.

    Raises:
      ValueError: If the implementation is named, cannot do this, and `strict` asks for no other.
    """
    if name != "auto":
        why = refusal(name, operation, x, w, platform, interpret)
        if why is None:
            return MODULES[name]
        if strict:
            raise ValueError(
                f"implementation={name!r} cannot compute {operation} of {tuple(x.shape)} by {w.shape}: {why}."
            )
    order = [other for other in MODULES if other != "native"]  # built on demand: only on request or where prepared
    return next(MODULES[other] for other in order if refusal(other, operation, x, w, platform, interpret) is None)


def platform_name(platform: str | None) -> str:
    """What a program is for, by default what JAX runs on: "cpu", "gpu" or "tpu"."""
    name = platform or jax.default_backend()
    name = {"cuda": "gpu", "rocm": "gpu"}.get(name, name)
    if name not in ("cpu", "gpu", "tpu"):
        raise ValueError(f"platform {platform!r} is not one of cpu, gpu and tpu.")
    return name


def _other_gpu() -> str | None:
    """The compute capability of the GPU at hand, if there is one and it is no Hopper."""
    if jax.default_backend() != "gpu":
        return None
    capability = str(getattr(jax.devices()[0], "compute_capability", "unknown"))
    return None if capability.startswith("9.") else capability
