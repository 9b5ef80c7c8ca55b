"""Who decides: searches for designs within a budget that is measured or modelled."""

from compressjax.search._trim import Candidate, Step, at_cost, trim

__all__ = ["Candidate", "Step", "at_cost", "trim"]
