"""Who decides: searches for designs within a budget that is measured or modelled.

Strategies that build on evosax (`NSGA2`, `PBIL`, `Elitist`, `Greedy`, `random_search`) are imported on first use:
evosax loads much that the rest of this room does without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from compressjax.search._driver import Driver, SearchState
from compressjax.search._elites import Elites, elites_add, elites_start
from compressjax.search._evaluate import FAILED, Evaluator, Outcome
from compressjax.search._front import crowding_distances, front, hypervolume, non_dominated_ranks
from compressjax.search._masked import accuracy, population_accuracy, share, stack_keeps, stack_slots
from compressjax.search._mesh import sharded
from compressjax.search._minimize import Result, minimize
from compressjax.search._record import Record, from_json, to_json
from compressjax.search._repair import to_budget
from compressjax.search._sensitivity import Round, Trial, sensitivity
from compressjax.search._space import Space
from compressjax.search._strategy import strategy
from compressjax.search._trim import Candidate, Step, at_cost, trim
from compressjax.search._variables import Category, Float, Int, Mask

if TYPE_CHECKING:
    from compressjax.search._baselines import Greedy, random_search
    from compressjax.search._elitist import Elitist
    from compressjax.search._nsga2 import NSGA2
    from compressjax.search._pbil import PBIL

__all__ = [
    "FAILED",
    "NSGA2",
    "PBIL",
    "Candidate",
    "Category",
    "Driver",
    "Elites",
    "Elitist",
    "Evaluator",
    "Float",
    "Greedy",
    "Int",
    "Mask",
    "Outcome",
    "Record",
    "Result",
    "Round",
    "SearchState",
    "Space",
    "Step",
    "Trial",
    "accuracy",
    "at_cost",
    "crowding_distances",
    "elites_add",
    "elites_start",
    "from_json",
    "front",
    "hypervolume",
    "minimize",
    "non_dominated_ranks",
    "population_accuracy",
    "random_search",
    "sensitivity",
    "sharded",
    "share",
    "stack_keeps",
    "stack_slots",
    "strategy",
    "to_budget",
    "to_json",
    "trim",
]

_LATER = {
    "Elitist": "_elitist",
    "Greedy": "_baselines",
    "NSGA2": "_nsga2",
    "PBIL": "_pbil",
    "random_search": "_baselines",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"compressjax.search has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"compressjax.search.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
