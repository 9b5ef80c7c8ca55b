"""Products with weights whose tiles expand into planes: N:M, int8, int4 and codebooks.

A packed tile stands for P dense tiles that meet P different parts of the inputs, and no kernel interleaves anything:

    N:M    P = m: dense tile j holds the inputs j, j + m, j + 2 m ...
    4 bit  P = 2: low nibbles are the first half of the inputs, high nibbles the second
    8 bit  P = 1

So `x` is cut into planes [P, M, K / P] before the kernel, and ``y = sum over p of x[p] @ tile[p]``.  The weights leave
main memory packed, which is the gain where few rows of `x` share them; the arithmetic is that of a dense product.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels._interface import Epilogue
from pallas_kernels.mosaic_tpu import _call, _expand
from pallas_kernels.nm import NM
from pallas_kernels.quantized import Quantized

ROWS = 256  # of x, per tile


@dataclass(frozen=True)
class Planes:
    """A packed matrix [K, N] as kernels take it.

    Attributes:
      count: P.
      tile: (inputs of one plane, outputs) of a tile.
      padded: (inputs of one plane, outputs) in whole tiles.
      inputs: Arrays, each with the shape of its tile and the place of tile (k, n); None in a shape is an axis dropped.
      codebook: Float32 levels that every tile needs, or None.
      expand: References to the tiles -> P float32 tiles.
      split: ``x [M, K] -> [P, M, K / P]``.
      join: The inverse.
    """

    count: int
    tile: tuple[int, int]
    padded: tuple[int, int]
    inputs: list[tuple[jax.Array, tuple[int | None, ...], Callable[[Any, Any], tuple[Any, ...]]]]
    codebook: jax.Array | None
    expand: Callable[[Sequence[Any]], list[jax.Array]]
    split: Callable[[jax.Array], jax.Array]
    join: Callable[[jax.Array], jax.Array]

    def specs(self, place: Callable[..., tuple[Any, Any]]) -> list[tuple[jax.Array, pl.BlockSpec]]:
        """Inputs of a kernel; `place` says which tile (k, n) a point of its grid needs."""

        def spec(shape: tuple[int | None, ...], index: Callable[[Any, Any], tuple[Any, ...]]) -> pl.BlockSpec:
            return pl.BlockSpec(shape, lambda *at: index(*place(*at)))

        specs = [(array, spec(shape, index)) for array, shape, index in self.inputs]
        if self.codebook is not None:
            specs.append((self.codebook, pl.BlockSpec(memory_space=pltpu.SMEM)))
        return specs


def multiply(x: jax.Array, w: NM | Quantized, bias: Any, epilogue: Epilogue, *, interpret: Any) -> jax.Array:
    """``epilogue(x @ w, bias)``."""
    weights, dtype = planes_of(w, interpret), _dtype(x, w)
    (tk, tn), (k, n) = weights.tile, weights.padded
    rows = rows_of(x, w, interpret)
    tall = _call.up(x.shape[0], rows)
    inputs = [
        (
            _call.pad(weights.split(x), weights.count, tall, k),
            pl.BlockSpec((weights.count, rows, tk), lambda i, j, s: (0, i, s)),
        )
    ]
    if bias is not None:
        row = pl.BlockSpec((1, tn), lambda i, j, s: (0, j))
        inputs.append((_call.pad(bias.astype(jnp.float32)[None], 1, n), row))

    def kernel(x_ref: Any, *refs: Any) -> None:
        bias_ref, tiles, out_ref, acc_ref = _call.parted(refs, bias is not None)
        step = pl.program_id(2)

        @pl.when(step == 0)
        def _() -> None:
            acc_ref[...] = jnp.zeros_like(acc_ref)

        products = [_call.dot(x_ref[p], tile, (1, 0), dtype) for p, tile in enumerate(weights.expand(tiles))]
        acc_ref[...] += functools.reduce(jnp.add, products)

        @pl.when(step == pl.num_programs(2) - 1)
        def _() -> None:
            out_ref[...] = epilogue(acc_ref[...], None if bias_ref is None else bias_ref[...])

    padded = _call.call(
        kernel,
        ((tall, n), epilogue.out_dtype),
        (tall // rows, n // tn, k // tk),
        (),
        inputs + weights.specs(lambda i, j, s: (s, j)),
        pl.BlockSpec((rows, tn), lambda i, j, s: (i, j)),
        (rows, tn),
        interpret,
    )
    return padded[: x.shape[0], : w.shape[1]]


def multiply_transposed(g: jax.Array, w: NM | Quantized, out_dtype: Any, *, interpret: Any) -> jax.Array:
    """``g @ w.T``."""
    weights, dtype = planes_of(w, interpret), _dtype(g, w)
    (tk, tn), (k, n) = weights.tile, weights.padded
    rows = rows_of(g, w, interpret)
    tall = _call.up(g.shape[0], rows)

    def kernel(g_ref: Any, *refs: Any) -> None:
        tiles, out_ref, acc_ref = _call.parted(refs, False)[1:]
        step = pl.program_id(2)

        @pl.when(step == 0)
        def _() -> None:
            acc_ref[...] = jnp.zeros_like(acc_ref)

        for p, tile in enumerate(weights.expand(tiles)):
            acc_ref[p] += _call.dot(g_ref[...], tile, (1, 1), dtype)

        @pl.when(step == pl.num_programs(2) - 1)
        def _() -> None:
            out_ref[...] = acc_ref[...].astype(out_ref.dtype)

    padded = _call.call(
        kernel,
        ((weights.count, tall, k), out_dtype),
        (tall // rows, k // tk, n // tn),
        (),
        [
            (_call.pad(g, tall, n), pl.BlockSpec((rows, tn), lambda i, j, s: (i, s))),
            *weights.specs(lambda i, j, s: (j, s)),
        ],
        pl.BlockSpec((weights.count, rows, tk), lambda i, j, s: (0, i, j)),
        (weights.count, rows, tk),
        interpret,
    )
    return weights.join(padded[:, : g.shape[0], : w.shape[0] // weights.count])


def planes_of(w: NM | Quantized, interpret: Any) -> Planes:
    """The planes of a format."""
    return _planes_of_nm(w, interpret) if isinstance(w, NM) else _planes_of_codes(w, interpret)


def tiles_of(w: NM | Quantized, interpret: Any) -> tuple[int, int]:
    """Inputs of one plane and outputs of a tile: less of both the more planes there are, which expand together."""
    unit, p = _call.lanes(interpret), planes_in(w)
    return _call.tile(w.shape[0] // p, unit, max(8 // p, 1)), _call.tile(w.shape[1], unit, max(32 // p, 1))


def planes_in(w: NM | Quantized) -> int:
    """P."""
    return w.m if isinstance(w, NM) else 8 // w.bits


def group_of(w: Quantized, interpret: Any) -> int:
    """Inputs of a tile that share a scale: the group, or what tiles and halves leave of it."""
    size = tiles_of(w, interpret)[0]
    return size if _whole_planes(w) else gcd(w.group, w.shape[0] // planes_in(w), size)


def rows_of(x: Any, w: NM | Quantized, interpret: Any) -> int:
    """Rows of `x` in a tile; 0 if none fit."""
    (tk, tn), p = tiles_of(w, interpret), planes_in(w)
    each = p * tk * (2 * 4 + 4) + tn * 16
    return _call.rows_of(x.shape[0], each, p * tk * tn * 8, ROWS, interpret)


def _whole_planes(w: Quantized) -> bool:
    """Whether no plane has two scales for one output."""
    return planes_in(w) % w.scale.shape[0] == 0


def _dtype(x: jax.Array, w: NM | Quantized) -> Any:
    return x.dtype if isinstance(w, Quantized) else jnp.promote_types(x.dtype, w.dtype)


def _planes_of_nm(w: NM, interpret: Any) -> Planes:
    m, (tk, tn) = w.m, tiles_of(w, interpret)
    k, n = _call.up(w.shape[0] // m, tk), _call.up(w.shape[1], tn)

    def packed(array: jax.Array) -> tuple[jax.Array, tuple[int, ...], Callable[[Any, Any], tuple[Any, ...]]]:
        return _call.pad(array, w.n, k, n), (w.n, tk, tn), lambda k, n: (0, k, n)

    return Planes(
        count=m,
        tile=(tk, tn),
        padded=(k, n),
        inputs=[packed(w.values), packed(w.indices)],
        codebook=None,
        expand=lambda refs: _expand.planes(refs[0][...], refs[1][...], m),
        split=lambda x: x.reshape(x.shape[0], -1, m).transpose(2, 0, 1),
        join=lambda y: y.transpose(1, 2, 0).reshape(y.shape[1], -1),
    )


def _planes_of_codes(w: Quantized, interpret: Any) -> Planes:
    p, (tk, tn), group = planes_in(w), tiles_of(w, interpret), group_of(w, interpret)
    inputs = w.shape[0] // p
    k, n = _call.up(inputs, tk), _call.up(w.shape[1], tn)
    # [groups, N] -> [P, tiles, groups of a tile, N]; padding repeats or clears scales, and its codes are zero.
    if _whole_planes(w):
        scale = jnp.repeat(w.scale, p // w.scale.shape[0], 0)[:, None]
        scale = jnp.broadcast_to(scale, (p, k // tk, w.shape[1]))
    else:
        scale = jnp.repeat(w.scale, w.group // group, 0).reshape(p, -1, w.shape[1])
    scale = _call.pad(scale.astype(jnp.float32), p, k // group, n).reshape(p, k // tk, tk // group, n)

    def expand(refs: Sequence[Any]) -> list[jax.Array]:
        tiles = _expand.levels(refs[0][...], w.bits, refs[2] if w.codebook is not None else None)
        return [_expand.scaled(tile, refs[1][i]) for i, tile in enumerate(tiles)]

    return Planes(
        count=p,
        tile=(tk, tn),
        padded=(k, n),
        inputs=[
            (_call.pad(w.codes, k, n), (tk, tn), lambda k, n: (k, n)),
            (scale, (p, None, tk // group, tn), lambda k, n: (0, k, 0, n)),
        ],
        codebook=None if w.codebook is None else w.codebook.astype(jnp.float32),
        expand=expand,
        split=lambda x: x.reshape(x.shape[0], p, -1).swapaxes(0, 1),
        join=lambda y: y.swapaxes(0, 1).reshape(y.shape[1], -1),
    )
