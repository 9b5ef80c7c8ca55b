"""Who decides: searches for designs within a budget that is measured or modelled."""

from compressjax.search._masked import accuracy, population_accuracy, share, stack_keeps
from compressjax.search._sensitivity import Round, Trial, sensitivity
from compressjax.search._trim import Candidate, Step, at_cost, trim

__all__ = [
    "Candidate",
    "Round",
    "Step",
    "Trial",
    "accuracy",
    "at_cost",
    "population_accuracy",
    "sensitivity",
    "share",
    "stack_keeps",
    "trim",
]
