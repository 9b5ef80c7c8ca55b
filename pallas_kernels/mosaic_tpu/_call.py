"""What the kernels share: sizes of tiles, padding, the product of two tiles, and the call.

A kernel sees only whole tiles: operands are padded with zeros before the call, results are cut after it.  On hardware
the last two axes of a tile are multiples of 16 and 128, the shape of a packed bfloat16 register; interpreted kernels
use multiples of 8, so that tests of several tiles stay small.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES, ROWS, INTERPRETED = 128, 16, 8
# Of the 16 MiB a kernel may use of every generation's vector memory; the rest is for what the compiler spills.
VMEM = 10 * 2**20


def lanes(interpret: Any) -> int:
    """What divides the last axis of every tile."""
    return INTERPRETED if interpret else LANES


def up(size: int, to: int) -> int:
    """The next multiple; at least one."""
    return max(-(-size // to), 1) * to


def tile(size: int, unit: int, most: int = 4) -> int:
    """The largest of 4, 2 and 1 units that divides the padded size, and is at most `most` units."""
    return next(n * unit for n in (4, 2, 1) if n <= most and up(size, unit) % (n * unit) == 0)


def rows_of(count: int, bytes_each: int, fixed: int, most: int, interpret: Any) -> int:
    """Rows of a tile when every row costs `bytes_each` of vector memory beside `fixed`; 0 if none fit.

    Few tiles of equal height: 300 rows are two tiles of 160, not one of 256 and a rest that is padded to 256.
    """
    unit = INTERPRETED if interpret else ROWS
    limit = min((VMEM - fixed) // bytes_each // unit * unit, unit if interpret else most)
    if limit <= 0:
        return 0
    tiles = up(count, limit) // limit
    return up(-(-count // tiles), unit)


def pad(x: jax.Array, *shape: int) -> jax.Array:
    """Zeros at the end of each axis."""
    return jnp.pad(x, [(0, to - size) for to, size in zip(shape, x.shape, strict=True)])


def dot(a: jax.Array, b: jax.Array, axes: tuple[int, int], dtype: Any) -> jax.Array:
    """The product of two tiles over one axis of each, in `dtype`, summed in float32.

    The matrix unit multiplies bfloat16; float32 takes six passes of it (`HIGHEST`) to be exact to its last bits.
    """
    precision = lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT
    contract = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(
        a.astype(dtype), b.astype(dtype), contract, precision=precision, preferred_element_type=jnp.float32
    )


def parted(refs: Sequence[Any], has_bias: bool) -> tuple[Any, Sequence[Any], Any, Any]:
    """The references of a kernel after the first: the bias or None, the packed tile, the result, the accumulator."""
    return refs[0] if has_bias else None, refs[int(has_bias) : -2], refs[-2], refs[-1]


def call(
    kernel: Callable[..., None],
    out: tuple[tuple[int, ...], Any],
    grid: tuple[int, ...],
    prefetched: Sequence[jax.Array],
    inputs: Sequence[tuple[jax.Array, pl.BlockSpec]],
    out_spec: pl.BlockSpec,
    accumulator: tuple[int, ...],
    interpret: Any,
) -> jax.Array:
    """`pallas_call` with scalars that index maps read, a float32 accumulator, and sums over the last grid axis."""
    order: Any = ("parallel",) * (len(grid) - 1) + ("arbitrary",)
    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(*out),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(prefetched),
            grid=grid,
            in_specs=[spec for _, spec in inputs],
            out_specs=out_spec,
            scratch_shapes=[pltpu.VMEM(accumulator, jnp.float32)],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=order),
        interpret=interpret,
    )(*prefetched, *(array for array, _ in inputs))
