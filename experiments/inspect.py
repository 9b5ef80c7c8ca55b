"""Prints an artefact layer by layer, bit by bit.

    python -m experiments.inspect --artifact=model.cjx [--dense_weights=430500]

Every bit of the file is charged to a leaf and a stream, or to the header; the total is the file's length.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from experiments.launch import refuse_arguments

if TYPE_CHECKING:  # the library is imported when there is a file to look at: --help stays fast
    from compressjax.storage import Account

_TITLES = ("leaf", "shape", "non-zeros", "codec", "values", "positions", "codebook", "header", "bytes", "share")


def inspect(path: str, dense_weights: int | None = None) -> str:
    """The printed account of a file.

    Args:
      path: An artefact.
      dense_weights: Weights of the original network, biases not counted; by default the entries of all leaves with
        two or more axes, which is less if units were cut.

    Returns:
      The text, without a final newline.

    Raises:
      ValueError: If the file is missing, damaged, foreign or of a newer version.
    """
    from compressjax import storage

    file = Path(path)
    if not file.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        data = file.read_bytes()
        account, meta = storage.account(data), storage.decode(data).meta
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    about = ", ".join(f"{key} {value}" for key, value in sorted(meta.items()))
    head = f"{path}: {len(data):,} bytes" + (f" ({about})" if about else "")
    return "\n\n".join((head, table(account), ratios(account, dense_weights)))


def table(account: "Account") -> str:
    """One line per leaf: shape, non-zeros, codec, bits by stream, bytes and share; then header and total."""
    total = max(account.bits, 1)

    def cells(name: str, shape: str, nonzeros: int, codec: str, bits: Sequence[int]) -> tuple[str, ...]:
        here = sum(bits)
        streams = (f"{stream:,}" for stream in bits)
        return (name, shape, f"{nonzeros:,}", codec, *streams, f"{here / 8:,.1f}", f"{here / total:.1%}")

    rows = [
        cells(
            leaf.path,
            f"{'x'.join(map(str, leaf.shape)) or 'scalar'} {leaf.dtype}",
            leaf.nonzeros,
            leaf.codec,
            (leaf.values, leaf.positions, leaf.codebook, leaf.header),
        )
        for leaf in account.leaves
    ]
    rows.append(cells("(file header)", "", 0, "", (0, 0, 0, account.file_header)))
    everything = (account.values, account.positions, account.codebook, account.header_bits)
    rows.append(cells("total", "", sum(leaf.nonzeros for leaf in account.leaves), "", everything))
    widths = [max(map(len, column)) for column in zip(_TITLES, *rows, strict=True)]
    left = {"leaf", "shape", "codec"}

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if title in left else cell.rjust(width)
            for title, cell, width in zip(_TITLES, row, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(_TITLES), rule, *map(line, rows[:-1]), rule, line(rows[-1])])


def ratios(account: "Account", dense_weights: int | None) -> str:
    """Ratios to 32-bit dense weights: of the values alone and of the file, with and without biases."""
    weights = dense_weights or sum(leaf.size for leaf in account.leaves if not leaf.is_bias)
    if not weights:
        return f"header {account.header_bits / 8:,.1f} bytes"
    reference = f"{weights:,} dense weights x 32 bits" + ("" if dense_weights else " (counted in this file)")
    return "\n".join(
        (
            f"header {account.header_bits / 8:,.1f} bytes; ratios to {reference}:",
            f"  values only      {account.ratio_data(weights):,.1f}x, "
            f"with those of biases {account.ratio_data(weights, biases=True):,.1f}x",
            f"  everything       {account.ratio_file(weights):,.1f}x, "
            f"without biases {account.ratio_file(weights, biases=False):,.1f}x",
        )
    )


def main(argv: list[str]) -> None:
    """Flag shell around `inspect`; a bad file ends it with one sentence and status 1."""
    refuse_arguments(argv)
    try:
        print(inspect(flags.FLAGS.artifact, flags.FLAGS.dense_weights))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("artifact", None, "The .cjx file.")
    flags.DEFINE_integer(
        "dense_weights",
        None,
        "Weights of the original network, to print ratios; by default those the file's shapes hold.",
        lower_bound=1,
    )
    flags.mark_flag_as_required("artifact")
    app.run(main)
