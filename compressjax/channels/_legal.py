"""Pass 2: which groups may be removed."""

from compressjax.channels._dims import Dim
from compressjax.channels._program import Program


def freeze_illegal(prog: Program, candidates: set[Dim]) -> None:
    """Freezes the atoms whose removal differs from masking."""
