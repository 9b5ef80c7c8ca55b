"""Which packed forms a rule allows, and which of them takes the fewest bytes.

A rule is a constraint, a mask or an `As`.  A constraint that describes structure names the one form made for it (tiles
of a `Block` become blocks, rows of a `Columns` become kept inputs); for the others, and for masks, all forms are
weighed and the smallest that holds the weights exactly is taken.  Bytes are what a product with few columns pays for;
where sparse loses all the same, `pack(batch=...)` finds out.

A convolution kernel (kh, kw, in, out) is packed as the matrix [kh * kw * in, out].  Its last two axes stay neighbours
in this matrix, so that a block of (inputs, outputs) of the kernel is a block of the matrix.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from compressjax import projections
from compressjax.quantizers import Quantizer


@dataclass(frozen=True)
class As:
    """How to pack a leaf: dense, unless one of `block`, `nm` and `channels` is given; and with how many bits.

    Args:
      block: (inputs, outputs) of the blocks; (1, 1) for single weights.
      nm: (n, m): of every m inputs that follow one another, each output uses at most n.
      channels: Keep the inputs and outputs that have a weight.
      bits: 8 or 4: round to evenly spaced levels, the only form here that changes weights; dense or in blocks.
      group: Inputs that share a scale, for `bits` without `block`; default: all.
      levels: Store the few distinct values that the weights already take, as codes, exactly; dense or in blocks.

    Raises:
      ValueError: If these do not go together.

    >>> As(block=(16, 16), bits=8)
    As(block=(16, 16), nm=None, channels=False, bits=8, group=None, levels=False)
    """

    block: tuple[int, int] | None = None
    nm: tuple[int, int] | None = None
    channels: bool = False
    bits: int | None = None
    group: int | None = None
    levels: bool = False

    def __post_init__(self) -> None:
        coded = self.levels or self.bits is not None
        if (self.block is not None) + (self.nm is not None) + self.channels > 1:
            raise ValueError(f"{self}: a leaf is packed in one structure: give one of block, nm and channels.")
        if self.block is not None and (len(self.block) != 2 or min(self.block) < 1):
            raise ValueError(f"{self}: a block is (inputs, outputs), both at least 1.")
        if self.nm is not None and (len(self.nm) != 2 or not 1 <= self.nm[0] <= self.nm[1] <= 127):
            raise ValueError(f"{self}: nm is (n, m) with 1 <= n <= m <= 127.")
        if self.levels and self.bits is not None:
            raise ValueError(f"{self}: either round to `bits` or keep the `levels` that are there.")
        if coded and (self.nm is not None or self.channels):
            raise ValueError(f"{self}: codes are stored dense or in blocks, not in nm or channels.")
        if self.bits not in (None, 4, 8):
            raise ValueError(f"{self}: bits is 4 or 8.")
        if self.group is not None and (self.bits is None or self.block is not None):
            raise ValueError(f"{self}: `group` divides the inputs of dense codes: it needs bits and no block.")


# Coarse before fine: of equal sizes the first wins.
_DENSE = As()
_FREE = (
    _DENSE,
    As(channels=True),
    *(As(nm=nm) for nm in ((1, 4), (1, 2), (2, 4), (2, 8), (4, 8))),
    *(As(block=(size, size)) for size in (128, 64, 32, 16, 8)),
    As(block=(16, 1)),
    As(block=(1, 16)),
    As(block=(4, 4)),
    As(block=(1, 1)),
)


def matrix_shape(shape: tuple[int, ...], path: str) -> tuple[int, int]:
    """The shape of the matrix a leaf is packed as.

    Raises:
      ValueError: If the leaf is neither a matrix nor a convolution kernel, or has no entries.
    """
    if len(shape) not in (2, 4):
        raise ValueError(
            f"{path}: a leaf of shape {shape} cannot be packed: it is no matrix (in, out) and no convolution kernel "
            "(kh, kw, in, out); exempt it with None."
        )
    if 0 in shape:
        raise ValueError(f"{path}: a leaf of shape {shape} has nothing to multiply with; exempt it with None.")
    return math.prod(shape[:-1]), shape[-1]


def candidates(rule: Any, shape: tuple[int, ...], path: str) -> tuple[As, ...]:
    """The forms a rule allows for a leaf.

    Raises:
      ValueError: For a rule that no packed form serves.
    """
    match rule:
        case As():
            return (rule,)
        case projections.Joint():
            return candidates(rule.constraint, shape, path) if isinstance(rule.constraint, Quantizer) else _FREE
        case projections.Both():
            sparse = candidates(rule.sparsity, shape, path)
            coded = (replace(form, levels=True) for form in sparse if form.nm is None and not form.channels)
            return (As(levels=True), *coded, *sparse)
        case projections.LowRank():
            raise ValueError(f"{path}: {rule} has no packed form: multiply by its two factors instead.")
        case projections.BlockPunched():
            # On a matrix a group is one input of a block.
            return (As(block=rule.block if len(shape) == 4 else (1, rule.block[1])),)
        case projections.Block():
            return (As(block=rule.block),)
        case projections.BlockRows():
            return (As(block=(1, rule.width)),)
        case projections.BlockColumns():
            return (As(block=(rule.width, 1)),)
        case projections.Filters() | projections.Channels() | projections.Columns() | projections.Submatrix():
            return (As(channels=True),)
        case projections.NM() if rule.axis % len(shape) == len(shape) - 2:
            return (As(nm=(rule.n, rule.m)),)
        case Quantizer():
            return (As(levels=True), *(replace(form, levels=True) for form in _FREE if form.block), *_FREE)
    return _FREE
