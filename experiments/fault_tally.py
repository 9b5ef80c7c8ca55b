"""What came of the faults of one kind.  Part of `experiments.faults`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

LONGEST = 3000  # letters of a sentence
EXAMPLES = 20  # that are kept of what must not be


@dataclass
class Tally:
    """Counts of one kind of fault.

    Attributes:
      fault: The kind.
      tried: Times that it was tried.
      writing: Of kills, those in the middle of writing a checkpoint or a file.
      right: Times that the result was the right one all the same; of kills, runs that ended so.
      refused: Times that it was refused in a sentence.
      runs: Of kills, runs that were taken to their end.
      lost: Records that are missing in the end.
      repeated: Records that are there too often.
      silent: Wrong results without an error.
      errors: Errors by type; all but ValueError are flaws.
      flaws: The first few cases that broke the law, in words.
    """

    fault: str
    tried: int = 0
    writing: int = 0
    right: int = 0
    refused: int = 0
    runs: int = 0
    lost: int = 0
    repeated: int = 0
    silent: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    flaws: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "errors": dict(self.errors)}

    def flaw(self, what: str) -> None:
        """Notes a case that broke the law."""
        if len(self.flaws) < EXAMPLES:
            self.flaws.append(what)


def judged(tally: Tally, what: str, attempt: Callable[[], None], hopeless: bool = False) -> None:
    """Tries one case: it works, or raises a `ValueError` that is one sentence, or is noted as a flaw.

    Args:
      tally: Takes the result.
      what: The case in words.
      attempt: The case; an `AssertionError` says that a wrong result came out.
      hopeless: Whether nothing right can come of it.
    """
    tally.tried += 1
    try:
        attempt()
    except ValueError as error:
        tally.errors["ValueError"] += 1
        if type(error) is not ValueError or not 10 <= len(f"{error}") <= LONGEST or "\n" in f"{error}":
            tally.flaw(f"{what}: no sentence: {type(error).__name__} {str(error)[:200]!r}")
        else:
            tally.refused += 1
    except AssertionError as error:
        tally.silent += 1
        tally.flaw(f"{what}: {error}")
    except Exception as error:  # which is what is being counted
        tally.errors[type(error).__name__] += 1
        tally.flaw(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    else:
        if hopeless:
            tally.silent += 1
            tally.flaw(f"{what}: accepted")
        else:
            tally.right += 1
