"""Expressions: formulas for scores as arrays, evaluated, varied and evolved.

A program is one formula in postfix order, two arrays of fixed length, so that populations of formulas are arrays too.
Not imported by `compressjax.search`: write ``from compressjax.search import expressions``.
"""

from compressjax.search.expressions._evaluate import evaluate
from compressjax.search.expressions._gp import ExpressionGP, GPParams, GPState
from compressjax.search.expressions._known import FORMULAS, FOUND, SEEDS, known
from compressjax.search.expressions._language import OPERATORS, PAPER, STATISTICS, WEIGHTS, Language, Operator
from compressjax.search.expressions._meaning import distances, induced, kept, normalized
from compressjax.search.expressions._oracle import RAW, oracle
from compressjax.search.expressions._programs import Programs, check, heights, lengths, single, stacked, start, valid
from compressjax.search.expressions._shared import Plan, plan, shared
from compressjax.search.expressions._terminals import StatisticsLike, Terminals, terminals
from compressjax.search.expressions._text import parse, to_function, unparse
from compressjax.search.expressions._vary import crossover, move_constants, mutate, random_programs

__all__ = [
    "FORMULAS",
    "FOUND",
    "OPERATORS",
    "PAPER",
    "RAW",
    "SEEDS",
    "STATISTICS",
    "WEIGHTS",
    "ExpressionGP",
    "GPParams",
    "GPState",
    "Language",
    "Operator",
    "Plan",
    "Programs",
    "StatisticsLike",
    "Terminals",
    "check",
    "crossover",
    "distances",
    "evaluate",
    "heights",
    "induced",
    "kept",
    "known",
    "lengths",
    "move_constants",
    "mutate",
    "normalized",
    "oracle",
    "parse",
    "plan",
    "random_programs",
    "shared",
    "single",
    "stacked",
    "start",
    "terminals",
    "to_function",
    "unparse",
    "valid",
]
