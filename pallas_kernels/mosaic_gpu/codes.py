"""Products with int8 and int4 weights on Hopper, dense or block-sparse.

For few rows of x, a product is as fast as its weights can be read, so they are read as codes and become floats on the
chip: every step copies a tile of codes into shared memory, each thread converts some of them, multiplies by their
scales, and writes them to another tile, which the tensor cores read.  The result is transposed,

    Y.T[n, m] = sum over k of W[k, n] * X[m, k],

because the tensor cores take 64 rows at least, but as few as 8 columns: 8 rows of x waste nothing.  XLA transposes the
result back, adds what several blocks of threads found for parts of the inputs, and applies scale (if there is one per
output), bias and activation, all in one pass over a small array.

Two int4 codes share a byte c: the high one is ``(c & -16) / 16``; the low one is ``((c & 15) ^ 8) - 8``, which extends
its sign.  All of these are exact in 16-bit floats.

Source: the layout of the codes is that of `Quantized`; splitting a sum over blocks of threads is "split-k" of CUTLASS.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import _compat
from pallas_kernels._interface import Epilogue
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.mosaic_gpu._pipeline import UNIT, accumulate, launch, layout, pad, stages, store, tile, up
from pallas_kernels.quantized import Quantized

# Blocks of threads that keep the memory busy: a few for each of Hopper's 132 multiprocessors.
ENOUGH = 400
FEW_ROWS = 16
STAGES = 4


@dataclass(frozen=True)
class _Walk:
    """Where the codes, their inputs and their scales are.

    Attributes:
      codes: int8 [blocks, packed inputs, N].
      scale: Of x's dtype, [blocks, groups, N].
      parts: Tiles of codes in a block, along the inputs.
      height: Bytes of one tile along the inputs.
      group: Inputs that share a scale.
      inputs: Of one block.
      bits: 4 or 8.
    """

    codes: jax.Array
    scale: jax.Array
    parts: int
    height: int
    group: int
    inputs: int
    bits: int

    @property
    def halves(self) -> int:
        """Weights in a byte."""
        return 8 // self.bits


def _walk(q: Quantized, dtype: Any) -> _Walk:
    inputs = q.shape[-2]
    packed = inputs * q.bits // 8
    # Two tiles of floats come of one tile of int4 codes: half the height keeps the sizes alike.
    height = next(h for h in ((2 * UNIT, UNIT) if q.bits == 8 else (UNIT,)) if packed % h == 0 and q.group % h == 0)
    return _Walk(
        codes=q.codes.reshape(-1, *q.codes.shape[-2:]),
        scale=q.scale.reshape(-1, *q.scale.shape[-2:]).astype(dtype),
        parts=packed // height,
        height=height,
        group=q.group,
        inputs=inputs,
        bits=q.bits,
    )


def refuse(q: Quantized) -> str | None:
    """Why codes cannot be multiplied with, as a clause; None if they can."""
    *_, inputs, outputs = q.shape
    unit = UNIT * 8 // q.bits
    if q.codebook is not None:
        return "it has no kernel for codebooks; dequantize the weights"
    if inputs % unit or outputs % UNIT:
        return f"with {q.bits} bits, inputs come in multiples of {unit} and outputs of {UNIT}, not {inputs} x {outputs}"
    if q.group % UNIT:
        return f"scales are for multiples of {UNIT} inputs, not for {q.group}"
    return None


def product(
    x: jax.Array,
    w: Quantized | BlockSparse,
    bias: jax.Array | None,
    epilogue: Epilogue,
    *,
    interpret: bool,
) -> jax.Array:
    """``epilogue(x @ w, bias)``.

    Args:
      x: [M, K], bfloat16 or float16.
      w: Codes of a matrix, or of the blocks of a block-sparse one.  Scales for groups of inputs are rounded to the
        dtype of `x`.
      bias: [N] or None.
      epilogue: Applied by XLA.
      interpret: Whether to run on the host.

    Returns:
      [M, N].
    """
    sparse = isinstance(w, BlockSparse)
    q = w.values if isinstance(w, BlockSparse) else w
    walk = _walk(q, x.dtype)
    whole_in, whole_out = w.padded if isinstance(w, BlockSparse) else w.shape
    scaled = sparse or walk.scale.shape[1] > 1  # One scale per output can wait for the sum.
    wide = next(n for n in ((UNIT, 2 * UNIT) if x.shape[0] <= FEW_ROWS else (2 * UNIT, UNIT)) if q.shape[-1] % n == 0)
    rows = next((r for r in (8, 16, 32, 64) if x.shape[0] <= r), 128)
    tall = up(x.shape[0], rows)
    tiles_out, tiles_down = whole_out // wide, tall // rows
    shares = 1 if sparse else _shares(walk.parts, tiles_out * tiles_down)
    # Unused by dense codes, but one kernel takes both.
    lists = (w.rows, w.starts) if isinstance(w, BlockSparse) else (jnp.zeros(1, jnp.int32),) * 2
    across = q.shape[-1] // wide  # Tiles of outputs in a block.

    def body(*refs: Any) -> None:
        rows_at, starts_at, x_at, codes_at, *rest = refs
        scale_at, (out_at, floats, staged) = rest[:-3], rest[-3:]
        share, m, n = (lax.axis_index(axis) for axis in ("share", "row", "column"))
        if sparse:
            column = lax.div(n, jnp.int32(across))
            first, blocks = starts_at[column], starts_at[column + 1] - starts_at[column]
        else:
            first, blocks = jnp.int32(0), 1
        within = lax.rem(n, jnp.int32(across))
        steps = walk.parts // shares

        def inputs_of(half: int) -> Any:
            """Which tile of x meets this half of the bytes."""

            def index(block: Any, part: Any) -> tuple[Any, Any]:
                at = share * steps + part + half * walk.parts
                start = rows_at[first + block] * (walk.inputs // walk.height) if sparse else 0
                return m, start + at

            return x_at, tile((rows, walk.height), index, x.dtype, late=False)

        def scales_of(half: int) -> Any:
            def index(block: Any, part: Any) -> tuple[Any, Any, Any]:
                at = (share * steps + part + half * walk.parts) * walk.height
                return first + block, lax.div(at, jnp.int32(walk.group)), within

            return scale_at[0], tile((None, None, wide), index, x.dtype, late=False)

        def codes_index(block: Any, part: Any) -> tuple[Any, Any, Any]:
            return first + block, share * steps + part, within

        halves = range(walk.halves)
        operands = [
            (codes_at, tile((None, walk.height, wide), codes_index, jnp.int8, late=False)),
            *(inputs_of(half) for half in halves),
            *(scales_of(half) for half in halves if scaled),
        ]

        def multiply(sums: Any, _: Any, codes: Any, *tiles: Any) -> None:
            packed = plgpu.layout_cast(codes[...], plgpu.Layout.WGMMA_UPCAST_2X)
            for half, values in enumerate(_floats(packed, walk.bits, x.dtype)):
                if scaled:
                    scale = tiles[walk.halves + half][...]
                    values = values * lax.broadcast_in_dim(scale, values.shape, (1,))
                floats[half] = values
            plgpu.commit_smem()
            for half in halves:
                plgpu.wgmma(sums, _compat.transpose_ref(floats.at[half]), _compat.transpose_ref(tiles[half]))
            plgpu.wgmma_wait(0)  # The next step overwrites the floats.

        def finish(sums: jax.Array, _: Any) -> None:
            store(sums, staged, out_at.at[share, pl.ds(n * wide, wide), pl.ds(m * rows, rows)])

        accumulate(multiply, finish, (wide, rows), 1, (blocks, steps), operands, depth)

    floats_bytes = walk.halves * walk.height * wide * 2
    step_bytes = walk.height * (wide + walk.halves * rows * 2) + walk.halves * wide * 2 * scaled
    depth = min(stages(step_bytes, floats_bytes + wide * rows * 4), STAGES)
    partial = launch(
        body,
        ((shares, whole_out, tall), jnp.float32),
        [
            plgpu.SMEM((walk.halves, walk.height, wide), x.dtype, transforms=layout(wide, x.dtype)),
            plgpu.SMEM((wide, rows), jnp.float32, transforms=layout(rows, jnp.float32)),
        ],
        {"share": shares, "row": tiles_down, "column": tiles_out},
        1,
        interpret,
        (*lists, pad(x, tall, whole_in), walk.codes, *((walk.scale,) if scaled else ())),
        f"int{walk.bits}" + "_blocks" * sparse,
    )
    sums = partial.sum(0).T[: x.shape[0], : w.shape[1]]
    if not scaled:
        sums = sums * q.scale.astype(jnp.float32)
    return epilogue(sums, None if bias is None else bias[None])


def _floats(packed: jax.Array, bits: int, dtype: Any) -> list[jax.Array]:
    """Codes as floats, exactly: one tile for int8, two for int4."""
    if bits == 8:
        return [packed.astype(dtype)]
    low, high = (packed & jnp.int8(15)) ^ jnp.int8(8), packed & jnp.int8(-16)
    return [low.astype(dtype) - jnp.asarray(8, dtype), high.astype(dtype) * jnp.asarray(0.0625, dtype)]


def _shares(parts: int, tiles: int) -> int:
    """Into how many sums to split one, so that there are enough blocks of threads; a divisor of `parts`."""
    fit = [n for n in range(1, parts + 1) if parts % n == 0 and n * tiles <= ENOUGH]
    return max(fit, default=1)
