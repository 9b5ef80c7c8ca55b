"""What a compressed layer costs on paper: the storage formulas of the pruning and quantization literature.

For a layer of N weights, k of them non-zero, with b bits per value:

    values        k b
    relative idx  (k + fillers)(g + b)      gap field of g bits; a filler stands for 2^g zeros (Deep Compression)
    CSR           k (b + ceil log2 columns) + (rows + 1) ceil log2(k + 1)
    bitmap        N + k b
    entropy       N H(k/N)                  iid positions; log2 C(N, k) is the floor
    N:M           k (b + ceil log2 M)
    structured    rows kept x columns kept x b + rows + columns

Published ratios count values only (`ratio` of `values`).  These formulas predict; `compressjax.storage.account`
measures a real file.

References:
  Han, Mao, Dally, "Deep Compression", ICLR 2016.  Ren et al., "ADMM-NN", ASPLOS 2019.
"""

import math

import numpy as np
from jaxtyping import Bool


def values(nonzeros: int, width: int) -> int:
    """Bits of the non-zero values: k b.

    >>> values(1550, 2)
    3100
    """
    return nonzeros * width


def gaps(mask: Bool[np.ndarray, "..."]) -> np.ndarray:
    """Runs of zeros before each non-zero, in C order (int64).

    >>> gaps(np.array([False, True, True, False, False, True]))
    array([1, 0, 2])
    """
    return np.diff(np.flatnonzero(mask), prepend=-1) - 1


def relative_index(mask: Bool[np.ndarray, "..."], width: int, gap_width: int) -> int:
    """Bits of values and relative positions of a real mask, fillers included: (k + fillers)(g + b).

    Args:
      mask: True where the weight is non-zero.
      width: Bits b per value.
      gap_width: Bits g per gap; a run of z zeros needs floor(z / 2^g) fillers.

    Returns:
      Bits, value bits included.

    >>> relative_index(np.array([False, False, True, True]), width=2, gap_width=1)
    9
    """
    runs = gaps(mask)
    return int(runs.size + np.sum(runs >> gap_width)) * (gap_width + width)


def best_gap_width(mask: Bool[np.ndarray, "..."], width: int, widest: int = 16) -> int:
    """The gap field g in 1..widest with the fewest bits on this mask; the narrowest of equals.

    >>> best_gap_width(np.array([False, False, True, True]), width=2)
    2
    """
    return min(range(1, widest + 1), key=lambda g: relative_index(mask, width, g))


def relative_index_estimate(size: int, nonzeros: int, width: int, gap_width: int) -> float:
    """`relative_index` for iid positions: fillers / k = q / (1 - q) with q = (1 - k/N)^(2^g).

    >>> round(relative_index_estimate(400_000, 3600, width=2, gap_width=8))
    39948
    """
    if not 0 < nonzeros <= size:
        return 0.0
    q = (1 - nonzeros / size) ** (2**gap_width)
    return nonzeros * (1 + q / (1 - q)) * (gap_width + width)


def csr(rows: int, columns: int, nonzeros: int, width: int) -> int:
    """Bits of compressed sparse rows, values included: k (b + ceil log2 columns) + (rows + 1) ceil log2(k + 1).

    >>> csr(2, 8, 3, width=2)
    21
    """
    return nonzeros * (width + bit_width(columns)) + (rows + 1) * bit_width(nonzeros + 1)


def bitmap(size: int, nonzeros: int, width: int) -> int:
    """Bits of one flag per weight and the values: N + k b.

    >>> bitmap(25, 5, width=3)
    40
    """
    return size + nonzeros * width


def entropy(size: int, nonzeros: int) -> float:
    """Bits of iid positions under an ideal coder that knows k/N: N H(k/N).

    >>> round(entropy(6000, 750), 1)
    3261.4
    """
    if not 0 < nonzeros < size:
        return 0.0
    p = nonzeros / size
    return -size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))


def positions_floor(size: int, nonzeros: int) -> float:
    """log2 C(N, k): the fewest bits that tell apart all masks with k of N entries.

    >>> round(positions_floor(8, 1), 6)
    3.0
    """
    return (math.lgamma(size + 1) - math.lgamma(nonzeros + 1) - math.lgamma(size - nonzeros + 1)) / math.log(2)


def structured(rows: int, columns: int, rows_kept: int, columns_kept: int, width: int) -> int:
    """Bits of a matrix with whole rows and columns removed: kept block x b, and a bitmap of rows and of columns.

    >>> structured(10, 4, 5, 2, width=2)
    34
    """
    return rows_kept * columns_kept * width + rows + columns


def block_punched(kept: int, blocks: int, positions: int, width: int) -> int:
    """Bits of block-punched weights: kept b, and a bitmap of the positions of each block.

    >>> block_punched(kept=64, blocks=2, positions=9, width=4)
    274
    """
    return kept * width + blocks * positions


def nm(kept: int, group: int, width: int) -> int:
    """Bits of N:M weights as tensor cores read them: each with its place among the `group` entries.

    >>> nm(kept=50, group=4, width=8)
    500
    """
    return kept * (width + bit_width(group))


def compare_formats(mask: Bool[np.ndarray, "*rows columns"], width: int) -> dict[str, int | float]:
    """Bits of a layer, values of `width` bits included, with each way of writing down where its non-zeros are.

    A layer without zeros needs no positions: all formats then take its values.

    Args:
      mask: True where the weight is non-zero; rows are all axes but the last.
      width: Bits per value.

    Returns:
      "bitmap", "relative" (with the best gap field), "csr" and "entropy" (the value bits and N H(k/N)).

    >>> compare_formats(np.eye(8, dtype=bool), width=4)
    {'bitmap': 96, 'relative': 64, 'csr': 92, 'entropy': 66.78...}
    """
    nonzeros = int(mask.sum())
    data = values(nonzeros, width)
    if nonzeros == mask.size:
        return dict.fromkeys(("bitmap", "relative", "csr", "entropy"), data)
    return {
        "bitmap": bitmap(mask.size, nonzeros, width),
        "relative": relative_index(mask, width, best_gap_width(mask, width)),
        "csr": csr(mask.size // mask.shape[-1], mask.shape[-1], nonzeros, width),
        "entropy": data + entropy(mask.size, nonzeros),
    }


def ratio(dense_weights: int, bits: int | float) -> float:
    """Compression ratio against 32-bit dense weights, 32 N / bits; infinite for zero bits.

    >>> ratio(430_500, 32 * 430)
    1001.1627906976744
    """
    return 32 * dense_weights / bits if bits else math.inf


def bit_width(count: int) -> int:
    """ceil(log2 count): bits of a field that tells `count` things apart.

    >>> [bit_width(n) for n in (1, 2, 3, 8, 9)]
    [0, 1, 2, 3, 4]
    """
    return max(count - 1, 0).bit_length()
