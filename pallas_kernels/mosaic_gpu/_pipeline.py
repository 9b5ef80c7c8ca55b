"""What the Hopper kernels share: sizes, shared-memory layouts, and one loop that copies and multiplies at once.

A block of threads owns one tile of the result.  It walks over the tiles of both operands that contribute to it; while
the tensor cores multiply the tiles of one step (`wgmma`, asynchronous), the copy engine (TMA) fetches those of the next
steps into other slots of shared memory.  What is fetched, the index maps say: they read the block list, so skipping a
block costs nothing.

With one warpgroup (128 threads), it starts the copies and the products itself.  With two, each owns half of the rows of
the tile, and a third one does nothing but start copies ("warp specialisation"); a tile of twice the rows halves the
traffic per product.

Source: the instruction and its layouts are described in NVIDIA's PTX manual, "Asynchronous Warpgroup Level Matrix
Multiply-Accumulate Instructions".
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import _compat

UNIT = 64  # Rows of one wgmma, and columns of 16 bits in one swizzled line of shared memory.
SHARED = 225 * 1024  # Bytes of shared memory for tiles; Hopper has 227 KiB per block, barriers need some.
MOST_STAGES = 6
COMPUTE = "warpgroup"


def up(size: int, to: int) -> int:
    """The next multiple; at least one."""
    return max(-(-size // to), 1) * to


def pad(x: jax.Array, *shape: int) -> jax.Array:
    """Zeros at the end of each axis."""
    return jnp.pad(x, [(0, to - size) for to, size in zip(shape, x.shape, strict=True)])


def layout(columns: int, dtype: Any) -> tuple[Any, ...]:
    """How a tile lies in shared memory: in lines of at most 128 bytes, permuted so that no two rows share a bank."""
    bits = jnp.dtype(dtype).itemsize * 8
    line = plgpu.find_swizzle(columns * bits)
    return plgpu.TilingTransform((8, line * 8 // bits)), plgpu.SwizzleTransform(line)


def tile(shape: tuple[int | None, ...], index: Callable[..., tuple[Any, ...]], dtype: Any, late: bool = True) -> Any:
    """A tile to be fetched at each step.

    Args:
      shape: None for axes of which one entry is taken.
      index: Which tile, from the indices of the step.
      dtype: Of the array.
      late: Whether the product that reads it may still run when the next step begins.
    """
    matrix = sum(size is not None for size in shape) > 1
    transforms = layout(shape[-1] or 1, dtype) if matrix else ()
    return plgpu.BlockSpec(shape, index, transforms=transforms, delay_release=int(late))


def stages(bytes_each: int, bytes_else: int) -> int:
    """Steps whose tiles are in shared memory at once; less than two if they do not fit."""
    return min((SHARED - bytes_else) // bytes_each, MOST_STAGES)


def accumulate(
    product: Callable[..., None],
    finish: Callable[[jax.Array, Any], None],
    accumulator: tuple[int, int],
    groups: int,
    grid: tuple[Any, ...],
    operands: Sequence[tuple[Any, Any]],
    depth: int,
) -> None:
    """Sums products over a walk.

    Args:
      product: Called at each step with (accumulator, number of this warpgroup, tiles); starts the products.
      finish: Called once with (sum in registers, number of this warpgroup); writes it.
      accumulator: Shape of the part of the result that one warpgroup owns.
      groups: Warpgroups that multiply: 1, or more with one beside them that copies.
      grid: Steps; may be computed.
      operands: Arrays, each with the tile of it that a step needs.
      depth: Number of steps whose tiles are in flight.
    """
    specs, arrays = [spec for _, spec in operands], [array for array, _ in operands]
    if groups == 1:

        def alone(sums: Any) -> jax.Array:
            plgpu.emit_pipeline(
                lambda _, *tiles: product(sums, 0, *tiles), grid=grid, in_specs=specs, max_concurrent_steps=depth
            )(*arrays)
            return sums[...]

        finish(pl.run_scoped(alone, plgpu.ACC(accumulator)), 0)
        return

    group = lax.axis_index(COMPUTE)

    def step(_: Any, *tiles_and_sums: Any) -> Any:
        *tiles, sums = tiles_and_sums
        product(sums, group, *tiles)
        plgpu.wgmma_wait(1)  # All but the last are done: `late` tiles of the step before are free.
        return sums

    def context(walk: Callable[[Any], Any]) -> None:
        @functools.partial(pl.run_scoped, sums=plgpu.ACC(accumulator))
        def _(sums: Any) -> None:
            walk(sums)
            finish(sums[...], group)

    plgpu.emit_pipeline_warp_specialized(
        step,
        grid=grid,
        memory_registers=40,
        in_specs=specs,
        wg_axis=COMPUTE,
        num_compute_wgs=groups,
        max_concurrent_steps=depth,
        compute_context=context,
    )(*arrays)


def store(values: jax.Array, shared: Any, out: Any) -> None:
    """Writes a tile from registers to global memory, through shared memory."""
    shared[...] = values.astype(shared.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(shared, out)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


def launch(
    body: Callable[..., None],
    out: tuple[tuple[int, ...], Any],
    shared: Sequence[Any],
    grid: dict[str, int],
    groups: int,
    interpret: bool,
    arrays: Sequence[jax.Array],
    name: str,
) -> jax.Array:
    """Runs `body` once per point of the grid, the last axis fastest.

    `body` takes references to the arrays, to the result, and to the arrays in shared memory.
    """
    options: dict[str, Any] = {} if groups == 1 else {"num_threads": groups + 1, "thread_name": COMPUTE}
    if interpret:
        options["interpret"] = _compat.interpret_mosaic_gpu()
    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct(*out),
        scratch_types=tuple(shared),
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        kernel_name=name,
        **options,
    )(*arrays)
