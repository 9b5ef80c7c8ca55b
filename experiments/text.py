"""Numbers as people read them, the same in reports and in the README."""

import math
from collections.abc import Mapping
from typing import Any


def percent(value: Any) -> str:
    """A share as per cent.

    >>> percent(0.99234), percent(None)
    ('99.23 %', '–')
    """
    return f"{100 * value:.2f} %" if is_number(value) else "–"


def times(value: Any) -> str:
    """A ratio.

    >>> times(1.0), times(84.96), times(1910.2)
    ('1×', '85.0×', '1,910×')
    """
    if not is_number(value):
        return "–"
    return "1×" if value == 1 else f"{value:,.0f}×" if value >= 100 else f"{value:.1f}×"


def count(value: Any) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}" if is_number(value) else "–"


def number(value: Any) -> str:
    """A number with three digits, or more before the point."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}") if is_number(value) else "–"


def size(value: float) -> str:
    """Bytes in units of 1000.

    >>> size(999), size(4321), size(1_724_320)
    ('999 bytes', '4.3 kB', '1.7 MB')
    """
    return (
        f"{value:,.0f} bytes" if value < 1000 else f"{value / 1e3:.1f} kB" if value < 1e6 else f"{value / 1e6:.1f} MB"
    )


def bits(widths: Mapping[str, int]) -> str:
    """Bits per layer, once if they are all equal.

    >>> bits({"conv1/kernel": 3, "fc1/kernel": 2}), bits({"a": 3, "b": 3})
    ('3–2', '3')
    """
    values = list(widths.values())
    return "–".join(str(v) for v in (values[:1] if len(set(values)) == 1 else values))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(48), duration(700), duration(8000)
    ('48 seconds', '12 minutes', '2.2 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
