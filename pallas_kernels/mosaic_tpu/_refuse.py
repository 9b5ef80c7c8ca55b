"""What the kernels cannot do, as clauses, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels._interface import Format
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.channels import Channels
from pallas_kernels.dense import Dense
from pallas_kernels.mosaic_tpu import _call, _expand, blocks, planes
from pallas_kernels.nm import NM
from pallas_kernels.quantized import Quantized

DTYPES = (jnp.float32, jnp.bfloat16)
# Three int32 arrays of this many fill most of the 1 MiB of scalar memory.
MOST_BLOCKS = 80_000
SUBLANES = 8  # rows of a float32 register


def refuse(operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: Any = False) -> str | None:
    """Why there is no kernel, as a clause; None if there is one."""
    for name, dtype in (("activations", x.dtype), ("weights", w.dtype)):
        if dtype not in DTYPES:
            return f"the {name} are {dtype}, and a TPU multiplies float32 and bfloat16: cast them"
    if isinstance(w, BlockSparse):
        return _refuse_blocks(operation, x, w, interpret)
    if isinstance(w, Dense):
        return "dense weights need no kernel: implementation='xla' calls the product of XLA"
    if isinstance(w, Channels):
        return "channel-packed weights are a smaller dense product: implementation='xla' calls that of XLA"
    if not isinstance(w, NM | Quantized):
        return f"there is no kernel for {type(w).__name__}: use implementation='xla'"
    if operation == "outer":
        return "the gradient of N:M and quantized weights is a dense product: implementation='xla' calls that of XLA"
    return _refuse_planes(x, w, interpret)


def _refuse_blocks(operation: str, x: Any, w: BlockSparse, interpret: Any) -> str | None:
    bk, bn = w.block
    lanes, count = _call.LANES, w.rows.shape[0]
    if not interpret and (bk % lanes or bn % lanes):
        return f"blocks of {w.block} do not fill the tiles of a TPU: pack with multiples of {lanes} both ways"
    if count > MOST_BLOCKS:
        return (
            f"a list of {count} blocks is more than the {MOST_BLOCKS} that scalar memory holds: split the outputs into "
            "several matrices, or pack larger blocks"
        )
    if isinstance(w.values, Quantized):
        group = w.values.group
        if not interpret and group % SUBLANES:
            return f"groups of {group} inputs do not fill registers of {SUBLANES} rows: use multiples of {SUBLANES}"
        why = _refuse_codebook(w.values)
        if why is not None:
            return why
    if operation == "outer":
        fit = blocks.outer_rows(x, w, interpret)
    else:
        fit = blocks.panel_rows(x, w, operation == "transposed", interpret)
    if not fit:
        return f"blocks of {w.block} and rows of {x.shape[1]} numbers exceed vector memory: split the matrix"
    return None


def _refuse_planes(x: Any, w: NM | Quantized, interpret: Any) -> str | None:
    if isinstance(w, Quantized):
        why = _refuse_codebook(w)
        if why is not None:
            return why
        group = planes.group_of(w, interpret)
        if not interpret and group % SUBLANES:
            return (
                f"groups of {w.group} inputs cut its tiles into pieces of {group} rows: use one scale per output, or "
                "groups of 128"
            )
    if not planes.rows_of(x, w, interpret):
        return f"groups of {planes.planes_in(w)} inputs expand to more than vector memory holds"
    return None


def _refuse_codebook(w: Quantized) -> str | None:
    levels = 0 if w.codebook is None else w.codebook.shape[0]
    if levels > _expand.LEVELS:
        return f"codebooks are looked up level by level, at most {_expand.LEVELS} of them: this one has {levels}"
    return None
