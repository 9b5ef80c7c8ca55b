r"""Known formulas: the seeds of the published evolution, and what it found.

With P the samples of a class and Q all others (the terminals of `compressjax.search.expressions.terminals`):

    seeds      AbsSNR, FDR, SymDiv (without its factor 0.5 and its -1, which rank the same), two-sample t,
               l1 and l2 of a channel's own weights, distance to the medoid
    found      F1 .. F4
    simplified Inspired 1 and 2, by hand

Inspired 2 subtracts the class mean; the released code subtracts the matrix of all class means there.

Source: Liu, Kung, Wentzlaff, "Evolving Transferable Neural Pruning Functions", GECCO 2022 (arXiv 2110.10876), and its
released functions.
"""

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs
from compressjax.search.expressions._text import parse

SEEDS = {
    "abs_snr": "abs(gP - gQ) / eps(sP + sQ)",
    "fdr": "square(gP - gQ) / eps(vP + vQ)",
    "sym_div": "vP / ridge(vQ) + vQ / ridge(vP) + square(gP - gQ) / ridge(vP + vQ)",
    "two_t": "abs(gP - gQ) / sqrt(eps(vP / nP + vQ / nQ))",
    "l1": "l1",
    "l2": "l2",
    "medoid": "medoid",
}
FOUND = {
    "f1": "vP + square(vQ - mX) / ridge(vP + vQ)",
    "f2": "vP / ridge(vQ) + vQ / ridge(vP) + square(std(mX) * vQ * mX + vP - gQ) / ridge(vP + vQ)",
    "f3": "square(mX - vQ) / sqrt(eps(vP / nP + vQ / nQ))",
    "f4": "vP / ridge(vQ / nQ) + ridge(abs(gP - gQ)) + mQ",
    "inspired1": "sP / (sQ + 0.2) + sQ / (sP + 0.2) + sum(square(mX - mP) + square(mX - mQ)) / (sP + sQ + 0.2)",
    "inspired2": "square(mX - mQ) / ridge(vP + vQ)",
}
FORMULAS = SEEDS | FOUND


def known(name: str, language: Language = PAPER) -> Programs:
    """One known formula as a program.

    Args:
      name: Of `FORMULAS`.
      language: Must have the terminals and operators that the formula names.

    Returns:
      (tokens,) arrays.

    Raises:
      ValueError: If there is no such formula, or the language lacks a name.

    >>> from compressjax.search.expressions import unparse
    >>> unparse(known("f1"))
    'vP + square(vQ - mX) / ridge(vP + vQ)'
    """
    if name not in FORMULAS:
        raise ValueError(f"There is no formula {name!r}; known are {', '.join(FORMULAS)}.")
    return parse(FORMULAS[name], language)
