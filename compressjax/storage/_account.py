"""Where the bits of an artefact go: values, positions, codebooks, header, leaf by leaf.

Raw bytes are charged as they are.  The range coder shares its stream among all leaves, so its bits are split by
information content: a symbol of probability p is charged -log2(p) bits, scaled by what the stream really measures
(termination, rounding: a few bits), and rounded so that the sum stays exact.  Hence

    sum over leaves and streams + file header = 8 x the file's length.
"""

import math
from dataclasses import dataclass

import numpy as np

from compressjax.storage import bits
from compressjax.storage._artifact import MAX_ELEMENTS, parse

STREAMS = ("values", "positions", "codebook", "header")


@dataclass(frozen=True)
class LeafAccount:
    """What one leaf takes.

    Attributes:
      path: The leaf's path.
      shape: Its shape.
      dtype: Its dtype's name.
      nonzeros: Entries other than +0.
      codec: Names of the codecs that store it.
      values: Bits of the values.
      positions: Bits of the positions of non-zeros, bitmaps of dropped slices included.
      codebook: Bits of scales, level tables and value histograms.
      header: Bits of shape, dtype and codec choice.

    >>> from compressjax import storage
    >>> leaf = account(storage.encode({"w": np.float32([0, 0.5, 0, -0.5])})).leaves[0]
    >>> leaf.path, leaf.shape, leaf.nonzeros, leaf.bits == leaf.values + leaf.positions + leaf.codebook + leaf.header
    ('w', (4,), 2, True)
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    nonzeros: int
    codec: str
    values: int
    positions: int
    codebook: int
    header: int

    @property
    def bits(self) -> int:
        """All bits of the leaf."""
        return self.values + self.positions + self.codebook + self.header

    @property
    def size(self) -> int:
        """Entries, zeros included."""
        return math.prod(self.shape)

    @property
    def is_bias(self) -> bool:
        """Whether the leaf is a vector or scalar, which the pruning literature does not count."""
        return len(self.shape) < 2


@dataclass(frozen=True)
class Account:
    """What a file consists of.

    Attributes:
      leaves: One entry per leaf, in the file's order.
      file_header: Bits that belong to no leaf: magic, version, checksum, names, metadata, lengths, padding.

    >>> from compressjax import storage
    >>> content = storage.encode({"w": np.eye(8, dtype=np.float32), "b": np.ones(8, np.float32)})
    >>> account(content).bits == 8 * len(content)
    True
    """

    leaves: tuple[LeafAccount, ...]
    file_header: int

    @property
    def bits(self) -> int:
        """All bits: 8 times the file's length."""
        return self.file_header + sum(leaf.bits for leaf in self.leaves)

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return self.bits // 8

    @property
    def values(self) -> int:
        """Bits of all values."""
        return sum(leaf.values for leaf in self.leaves)

    @property
    def positions(self) -> int:
        """Bits of all positions."""
        return sum(leaf.positions for leaf in self.leaves)

    @property
    def codebook(self) -> int:
        """Bits of all codebooks."""
        return sum(leaf.codebook for leaf in self.leaves)

    @property
    def header_bits(self) -> int:
        """Bits of everything else: the file's header and the leaves'."""
        return self.file_header + sum(leaf.header for leaf in self.leaves)

    def streams(self) -> dict[str, dict[str, int]]:
        """Bits of values, positions and codebook by leaf; with `header_bits` they sum to the file's."""
        return {leaf.path: {stream: getattr(leaf, stream) for stream in STREAMS[:3]} for leaf in self.leaves}

    def ratio_data(self, dense_weights: int, *, biases: bool = False) -> float:
        """32 x dense weights / bits of values: what the literature's headlines report.

        Args:
          dense_weights: Weights of the *original* network, before any were cut; biases are never counted.
          biases: Whether the values of vectors and scalars count as data.

        Returns:
          The ratio; infinite for no data.
        """
        data = sum(leaf.values for leaf in self.leaves if biases or not leaf.is_bias)
        return bits.ratio(dense_weights, data)

    def ratio_file(self, dense_weights: int, *, biases: bool = True) -> float:
        """32 x dense weights / bits of the file: values, positions, codebooks, header, biases, everything.

        Args:
          dense_weights: Weights of the *original* network, before any were cut; biases are never counted.
          biases: False leaves out all bits of vectors and scalars.

        Returns:
          The ratio.
        """
        left_out = 0 if biases else sum(leaf.bits for leaf in self.leaves if leaf.is_bias)
        return bits.ratio(dense_weights, self.bits - left_out)


def account(data: bytes, *, max_elements: int = MAX_ELEMENTS) -> Account:
    """Charges every bit of an artefact to a leaf and a stream.

    Args:
      data: What `encode` returned.
      max_elements: As for `decode`.

    Returns:
      The account; its bits sum to 8 len(data) exactly.

    Raises:
      ValueError: As for `decode`.

    >>> from compressjax.storage import encode
    >>> data = encode({"fc": {"kernel": np.array([[0, 0.5], [-0.5, 0]], np.float32)}})
    >>> account(data).bits == 8 * len(data)
    True
    """
    parsed = parse(data, max_elements)
    keys = [("", "metadata"), *((path, stream) for path in parsed.leaves for stream in STREAMS)]
    ideal = np.array([parsed.reader.ideal.get(key, 0.0) for key in keys])
    # Rounding the running sum, not the parts, keeps the total; the scale absorbs termination.
    stream_bits = 8 * parsed.stream_bytes
    scale = stream_bits / ideal.sum() if ideal.sum() else 0.0
    if scale > 1:  # padding, and the last byte of a short stream: no leaf's fault
        scale = min(scale, 1.0 + 8 / ideal.sum())
    running = np.floor(np.concatenate([[0.0], np.cumsum(ideal)]) * scale + 1e-6).astype(np.int64)
    spent = dict(zip(keys, np.diff(running).tolist(), strict=True))
    for key, size in parsed.reader.exact.items():
        spent[key] += size

    leaves = tuple(
        LeafAccount(
            path,
            leaf.shape,
            str(leaf.values.dtype),
            leaf.nonzeros,
            leaf.codec,
            *(spent[path, stream] for stream in STREAMS),
        )
        for path, leaf in parsed.leaves.items()
    )
    return Account(leaves, 8 * len(data) - sum(leaf.bits for leaf in leaves))
