"""Comparing running times fairly on a machine that others use too.

Part of `experiments.bench`.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
      suite: Which suite it belongs to.
      name: What was measured, against what.
      value: The median.
      unit: ``"x"`` for a ratio, else a unit.
      goal: Upper limit that the project holds itself to, if there is one.
      detail: The numbers behind it.
    """

    suite: str
    name: str
    value: float
    unit: str
    goal: float | None = None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else self.value <= self.goal


@dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of one call, round by round."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def per(self, steps: int) -> "Timing":
        """The same for one of the `steps` steps of a call.

        >>> Timing((4.0,), (2.0,)).per(4)
        Timing(wall=(1.0,), cpu=(0.5,))
        """
        return Timing(tuple(t / steps for t in self.wall), tuple(t / steps for t in self.cpu))


def interleaved(variants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Times each variant `repeats` times, all of them in every round, the order turned round after each.

    Args:
      variants: Functions without arguments that return when their work is done; each is called once before, to compile.
      repeats: Rounds.

    Returns:
      Times by name.
    """
    names = list(variants)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        variants[name]()
    for i in range(repeats):
        for name in names if i % 2 == 0 else reversed(names):
            begin, used = time.perf_counter(), time.process_time()
            variants[name]()
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() - used)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in names}


def compare(suite: str, name: str, this: Timing, base: Timing, goal: float | None) -> Row:
    """A row with the median, over rounds, of the ratio within a round; the middle half of the ratios shows the noise.

    >>> compare("train", "", Timing((2.0, 9.0, 4.0), (1.0,) * 3), Timing((1.0, 3.0, 4.0), (1.0,) * 3), None).value
    2.0
    """
    wall = [a / b for a, b in zip(this.wall, base.wall, strict=True)]
    cpu = [a / b for a, b in zip(this.cpu, base.cpu, strict=True)]
    low, _, high = statistics.quantiles(wall, n=4, method="inclusive") if len(wall) > 1 else wall * 3
    return Row(
        suite=suite,
        name=name,
        value=statistics.median(wall),
        unit="x",
        goal=goal,
        detail=f"middle half {low:.2f}-{high:.2f}; {milliseconds(statistics.median(this.wall))} against "
        f"{milliseconds(statistics.median(base.wall))}; processor time {statistics.median(cpu):.2f}x",
    )


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits.

    >>> milliseconds(0.01234)
    '12.3 ms'
    """
    return f"{1e3 * seconds:.3g} ms"


def to_text(rows: Sequence[Row]) -> str:
    """The rows as an aligned table."""
    lines = [("", "measured", "goal", "", "")]
    for row in rows:
        value = f"{row.value:,.0f} {row.unit}" if row.value >= 100 else f"{row.value:.2f} {row.unit}"
        goal = "" if row.goal is None else f"<= {row.goal:.2f}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        lines.append((row.name, value.replace(" x", "x"), goal, verdict, row.detail))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {goal:<{widths[2]}}  {verdict:<{widths[3]}}  {detail}".rstrip()
        for name, value, goal, verdict, detail in lines
    )
